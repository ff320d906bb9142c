"""pack: arrange a partition's tokens and annotations as training sequences, one file for each layout."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.concurrency import WriteBehind
from colophon.pipeline.errors import InputError, one_line
from colophon.pipeline.recipe.schema import PackSection
from colophon.pipeline.stages.tasks import Task, TaskResult
from colophon.pipeline.stages.timing import Clock
from colophon.pipeline.stages.vocabulary import PlannedTokenizer
from colophon.pipeline.storage.commits import Draft, Store
from colophon.pipeline.storage.fault_injection import reached
from colophon.pipeline.storage.publication import Finished
from colophon.pipeline.storage.run_files import damage_as_error
from colophon.shards.arrow_files import list_chunks, packed_table, read_table, write_table
from colophon.shards.common.errors import TokenizerError
from colophon.shards.layouts import Layout
from colophon.shards.metadata import document_metadata, most_column_bytes, shortened
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.packing.pack import Packed, pack
from colophon.shards.reader import PackedFile
from colophon.shards.records import Record
from colophon.shards.schema import PackedInfo, TokenizerInfo
from colophon.shards.selection import selected
from colophon.shards.tokenizer.tokenizer import Tokenizer

_READ_ROWS = 1 << 10


@dataclass(frozen=True)
class PackStage:
    """The layouts of a recipe over the same tokens."""

    store: Store
    pack: PackSection
    layouts: Mapping[str, Layout]
    providers: Mapping[str, str]
    """The annotator that writes each annotation column."""
    settings: Mapping[Output, str]
    """The fingerprint of each layout's settings."""
    tokenizer: PlannedTokenizer

    @property
    def name(self) -> str:
        """The stage's name in progress and summaries."""
        return "pack"

    def start(self) -> PackWorker:
        """A worker, with the vocabulary that encodes metadata."""
        return PackWorker(self, self.tokenizer.load())


class PackWorker:
    """Packs partitions in every layout that a task wants."""

    def __init__(self, stage: PackStage, tokenizer: Tokenizer) -> None:
        self._stage = stage
        self._tokenizer = tokenizer

    def work(self, task: Task) -> TaskResult:
        """Read a partition's tokens, then for each layout read its annotation columns and pack; publish all files.

        A layout's file is written on a second thread while the next layout is packed.
        """
        clock = Clock()
        wanted = [name for name in self._stage.layouts if Output.packed(name) in task.outputs]
        files = [LayoutFile(self._stage, self._tokenizer, name, records=task.upstream) for name in wanted]
        finished: list[Finished] = []
        with ExitStack() as stack:
            store, stored = self._stage.store, task.upstream[TOKENS].path
            path = stack.enter_context(store.files.local_copy(stored))
            with WriteBehind(depth=1) as later:
                with clock.measure("read"), damage_as_error(f"{store.root}/{stored}"):
                    tokens = read_table(path)
                for file in files:
                    with clock.measure("read"):
                        columns = file.columns(tokens)
                    with clock.measure("pack"):
                        packed = file.pack(tokens, columns)
                    draft = stack.enter_context(self._draft(task, file))
                    write = partial(self._write, task, file, packed, draft)
                    later(partial(clock.call, "write", lambda write: finished.append(write()), write))
                    reached("mid-write", "packed")
            with clock.measure("write"):
                records = self._stage.store.publish(finished, replaces=task.replaces)
        return TaskResult(
            records=records,
            documents=tokens.num_rows,
            text_bytes=task.upstream[TOKENS].counts["text_bytes"],
            seconds=clock.seconds,
        )

    def _draft(self, task: Task, file: LayoutFile) -> AbstractContextManager[Draft]:
        output = file.output
        return self._stage.store.draft(output=output, partition=task.partition.name, suffix=output.suffix)

    def _write(self, task: Task, file: LayoutFile, packed: Packed, draft: Draft) -> Finished:
        """Write and check a layout's file."""
        table = file.table(packed, source=task.partition.source)
        write_table(draft.path, table)
        return draft.finish(
            check=lambda path: _check_rows(path, table.num_rows),
            rows=table.num_rows,
            fingerprint=task.outputs[file.output],
            counts=file.counts(packed),
        )


class LayoutFile:
    """One layout's file of one partition, made from the files in `records`."""

    def __init__(self, stage: PackStage, tokenizer: Tokenizer, name: str, *, records: Mapping[Output, Record]) -> None:
        self._stage, self._tokenizer, self._name, self._records = stage, tokenizer, name, records
        self._layout = stage.layouts[name]

    @property
    def output(self) -> Output:
        """The layout's output."""
        return Output.packed(self._name)

    def columns(self, tokens: pa.Table) -> dict[str, pa.Array]:
        """Read the annotation columns that the layout shows or selects by."""
        return annotation_columns(
            self._layout,
            tokens=tokens,
            records=self._records,
            providers=self._stage.providers,
            store=self._stage.store,
        )

    def pack(self, tokens: pa.Table, columns: Mapping[str, pa.Array]) -> Packed:
        """Arrange the documents as sequences.

        Raises:
            InputError: the partition's metadata, or its ids, have 2 GiB or more.
        """
        try:
            return self._pack(tokens, columns)
        except (pa.ArrowCapacityError, TokenizerError) as error:
            raise InputError(f"layouts.{self._name}: metadata of the partition: {one_line(error)}") from error

    def _pack(self, tokens: pa.Table, columns: Mapping[str, pa.Array]) -> Packed:
        section = self._stage.pack
        offsets, chunks = list_chunks(tokens.column("input_ids"))
        kept = selected(self._layout.where, columns, num_rows=tokens.num_rows)
        return pack(
            self._layout,
            text_offsets=offsets,
            text_ids=chunks,
            metadata=document_metadata(
                self._layout,
                ids=tokens.column("id").combine_chunks(),
                columns=columns,
                tokenizer=self._tokenizer,
                seed=section.seed,
                kept=kept,
            ),
            special=self._tokenizer.special,
            sequence_length=section.sequence_length,
            method=section.method,
            kept=kept,
            allocate=self._stage.store.files.scratch_array,
        )

    def counts(self, packed: Packed) -> dict[str, int]:
        """The counts of the file's record."""
        return {**packed.counts, **{f"tokens_{role}": n for role, n in packed.num_tokens.items()}}

    def table(self, packed: Packed, *, source: str) -> pa.Table:
        """The content of the file; `source` is the input file that its metadata names."""
        info = PackedInfo(
            sequence_length=self._stage.pack.sequence_length,
            layout={"name": self._name, **self._layout.model_dump(mode="json")},
            role_weights=self._layout.weights(),
            tokenizer=tokenizer_info(self._tokenizer),
            sources=[source],
            fingerprint=self._stage.settings[self.output],
            num_tokens=packed.num_tokens,
        )
        return packed_table(
            packed.input_ids,
            run_lengths=packed.run_lengths,
            run_roles=packed.run_roles,
            run_documents=packed.run_documents,
            runs_per_row=packed.runs_per_row,
            info=info,
        )


def annotation_columns(
    layout: Layout, *, tokens: pa.Table, records: Mapping[Output, Record], providers: Mapping[str, str], store: Store
) -> dict[str, pa.Array]:
    """The annotation columns that a layout shows or selects by, read from the files in `records`.

    Strings are cut to what the layout can show, so that memory does not depend on the length of URLs.

    Raises:
        InputError: a file and `tokens` differ in their number of rows.
    """
    columns: dict[str, pa.Array] = {}
    for annotator in dict.fromkeys(providers[column] for column in layout.columns):
        names = [column for column in layout.columns if providers[column] == annotator]
        record = records[Output.annotations(annotator)]
        with (
            store.files.local_copy(record.path) as path,
            damage_as_error(f"{store.root}/{record.path}"),
            pq.ParquetFile(path, page_checksum_verification=True) as parquet,
        ):
            batches = parquet.iter_batches(_READ_ROWS, columns=names, use_threads=False)
            short = [_shortened(batch, most_column_bytes(layout)) for batch in batches]
            schema = pa.schema([parquet.schema_arrow.field(name) for name in names])
        table = pa.Table.from_batches(short, schema)
        if table.num_rows != tokens.num_rows:
            raise InputError(f"annotator {annotator} has {table.num_rows} rows; its token file has {tokens.num_rows}")
        columns |= {name: table.column(name).combine_chunks() for name in names}
    return columns


def _shortened(batch: pa.RecordBatch, most: int) -> pa.RecordBatch:
    columns = [shortened(column, most) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def tokenizer_info(tokenizer: Tokenizer) -> TokenizerInfo:
    """The tokenizer as a packed file's metadata describes it."""
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
        raise InputError(f"{path} has {found} rows; expected {rows}")
