"""pack: a partition's tokens and annotations as training sequences, one file for each layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.concurrency import WriteBehind
from colophon.pipeline.errors import InputError
from colophon.pipeline.recipe.schema import PackSection
from colophon.pipeline.stages.tasks import Task, TaskResult
from colophon.pipeline.stages.timing import Clock
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.fault_injection import reached
from colophon.shards.arrow_files import list_chunks, packed_table, read_table, write_table
from colophon.shards.layouts import Layout
from colophon.shards.manifest import Record
from colophon.shards.metadata import document_metadata
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.packing import Packed, pack
from colophon.shards.reader import PackedFile
from colophon.shards.schema import PackedInfo, TokenizerInfo
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer


@dataclass(frozen=True)
class PackStage:
    """All layouts of a recipe over the same tokens."""

    store: Store
    pack: PackSection
    layouts: Mapping[str, Layout]
    providers: Mapping[str, str]
    """Which annotator makes each annotation column."""
    settings: Mapping[Output, str]
    """The fingerprint of each layout's settings."""
    tokenizer: TokenizerConfig
    num_meta_tokens: int

    @property
    def title(self) -> str:
        """For progress and summaries."""
        return "pack"

    def start(self) -> PackWorker:
        """Load the vocabulary, for metadata."""
        return PackWorker(self, load_tokenizer(self.tokenizer, num_meta_tokens=self.num_meta_tokens))


class PackWorker:
    """Arranges partitions in layouts."""

    def __init__(self, stage: PackStage, tokenizer: Tokenizer) -> None:
        self._stage = stage
        self._tokenizer = tokenizer

    def work(self, task: Task) -> TaskResult:
        """Pack one partition in every layout that is not up to date; each is committed while the next one is packed."""
        clock = Clock()
        records: list[Record] = []
        wanted = [name for name in self._stage.layouts if Output.packed(name) in task.outputs]
        with self._stage.store.local(task.upstream[TOKENS].path) as path, WriteBehind(depth=1) as later:
            with clock.measure("read"):
                tokens = read_table(path)
            for name in wanted:
                packed = self._pack(task, name, tokens, clock=clock)

                def commit(name: str = name, packed: Packed = packed) -> None:
                    with clock.measure("write"):
                        records.append(self._commit(task, name, packed))

                later(commit)
                reached("mid-write", "packed")
        return TaskResult(
            records=tuple(records),
            documents=tokens.num_rows,
            text_bytes=task.upstream[TOKENS].counts["text_bytes"],
            seconds=clock.seconds,
        )

    def _pack(self, task: Task, name: str, tokens: pa.Table, *, clock: Clock) -> Packed:
        layout = self._stage.layouts[name]
        with clock.measure("read"):
            columns = annotation_columns(
                layout, tokens=tokens, records=task.upstream, providers=self._stage.providers, store=self._stage.store
            )
        with clock.measure("pack"):
            ids = tokens.column("id").combine_chunks()
            seed = self._stage.pack.seed
            offsets, chunks = list_chunks(tokens.column("input_ids"))
            return pack(
                layout,
                text_offsets=offsets,
                text_ids=chunks,
                metadata=document_metadata(layout, ids=ids, columns=columns, tokenizer=self._tokenizer, seed=seed),
                special=self._tokenizer.special,
                sequence_length=self._stage.pack.sequence_length,
                method=self._stage.pack.method,
                allocate=self._stage.store.scratch_array,
            )

    def _commit(self, task: Task, name: str, packed: Packed) -> Record:
        layout = self._stage.layouts[name]
        info = PackedInfo(
            sequence_length=self._stage.pack.sequence_length,
            layout={"name": name, **layout.model_dump(mode="json")},
            role_weights=layout.weights(),
            tokenizer=tokenizer_info(self._tokenizer),
            sources=[task.partition.source],
            fingerprint=self._stage.settings[Output.packed(name)],
            num_tokens=packed.num_tokens,
        )
        table = packed_table(
            packed.input_ids,
            run_lengths=packed.run_lengths,
            run_roles=packed.run_roles,
            run_documents=packed.run_documents,
            runs_per_row=packed.runs_per_row,
            info=info,
        )
        return self._stage.store.commit(
            output=Output.packed(name),
            partition=task.partition.name,
            suffix=Output.packed(name).suffix,
            write=lambda path: write_table(path, table),
            check=lambda path: _check_rows(path, table.num_rows),
            rows=table.num_rows,
            fingerprint=task.outputs[Output.packed(name)],
            counts={**packed.counts, **{f"tokens_{role}": n for role, n in packed.num_tokens.items()}},
        )


def annotation_columns(
    layout: Layout, *, tokens: pa.Table, records: Mapping[Output, Record], providers: Mapping[str, str], store: Store
) -> dict[str, pa.Array]:
    """What a layout's template names of a partition's documents, from the annotation files in `records`.

    Raises:
        InputError: a file has not as many rows as `tokens`.
    """
    columns: dict[str, pa.Array] = {}
    for annotator in dict.fromkeys(providers[field] for field in layout.fields):
        names = [field for field in layout.fields if providers[field] == annotator]
        with store.local(records[Output.annotations(annotator)].path) as path, pq.ParquetFile(path) as parquet:
            table = parquet.read(columns=names, use_threads=False)
        if table.num_rows != tokens.num_rows:
            raise InputError(f"annotator {annotator} has {table.num_rows} rows, the token file {tokens.num_rows}")
        columns |= {name: table.column(name).combine_chunks() for name in names}
    return columns


def tokenizer_info(tokenizer: Tokenizer) -> TokenizerInfo:
    """What a packed file says of the tokenizer."""
    return TokenizerInfo(
        name=tokenizer.name,
        sha256=tokenizer.sha256,
        num_base_ids=tokenizer.num_base_ids,
        num_ids=tokenizer.num_ids,
        special=tokenizer.special,
    )


def _check_rows(path: Path, rows: int) -> None:
    found = len(PackedFile(path))
    if found != rows:
        raise InputError(f"{path}: {found} rows written of {rows}")
