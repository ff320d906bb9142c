"""tokenize: a partition's texts as ids, once, for every layout."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.flow import Clock, WriteBehind, read_ahead
from pipeline.inputs import ColumnNeed
from pipeline.readers import PartitionReader
from pipeline.store import Draft, Store
from pipeline.work import Task, TaskResult
from shards.files import growing_table, read_table, tokens_table
from shards.schema import tokens_schema
from shards.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer

STAGE = "tokens"
SUFFIX = ".arrow"


@dataclass(frozen=True)
class TokenizeStage:
    """One tokenizer over the text column."""

    store: Store
    tokenizer: TokenizerConfig
    num_meta_tokens: int
    needs: tuple[ColumnNeed, ...]

    @property
    def title(self) -> str:
        """For progress and summaries."""
        return "tokenize"

    def start(self) -> TokenizeWorker:
        """Load the vocabulary and what turns texts into its ids."""
        tokenizer = load_tokenizer(self.tokenizer, num_meta_tokens=self.num_meta_tokens)
        _ = tokenizer.engine  # else the first batch would pay for it
        return TokenizeWorker(self, tokenizer)


class TokenizeWorker:
    """Turns texts into ids."""

    def __init__(self, stage: TokenizeStage, tokenizer: Tokenizer) -> None:
        self._stage = stage
        self._tokenizer = tokenizer

    def work(self, task: Task) -> TaskResult:
        """Tokenize one partition: read, encode and write batch by batch, commit one row-aligned file."""
        clock = Clock()
        reader = PartitionReader(task.partition, self._stage.needs, stage="tokenize")
        with self._stage.store.draft(stage=STAGE, partition=task.partition.name, suffix=SUFFIX) as draft:
            counts = self._encode(reader, draft, clock=clock)
            counts |= {"texts_null": reader.texts_null, "texts_repaired": reader.texts_repaired}
            rows = counts.pop("rows")
            with clock.measure("write"):
                record = draft.commit(
                    check=lambda path: _check_rows(path, rows),
                    rows=rows,
                    fingerprint=task.outputs[STAGE],
                    counts={**counts, "lines_bad": len(reader.problems)},
                    problems=reader.problems,
                )
        return TaskResult(
            records=(record,),
            documents=rows,
            text_bytes=record.counts["text_bytes"],
            seconds=clock.seconds,
            notes=(f"tokenizer {self._tokenizer.name}: {self._tokenizer.engine}",),
        )

    def _encode(self, reader: PartitionReader, draft: Draft, *, clock: Clock) -> dict[str, int]:
        """Write the ids of all batches to the draft; what was counted on the way."""
        counts = Counter({"rows": 0, "tokens": 0, "text_bytes": 0, "documents_empty": 0})
        dtype = self._tokenizer.dtype
        with (
            closing(read_ahead(clock.each("read", reader))) as batches,
            growing_table(draft.path, tokens_schema(dtype)) as write,
            WriteBehind() as later,
        ):
            for batch in batches:
                with clock.measure("work"):
                    text = batch.column("text")
                    table = tokens_table(batch.column("id"), self._tokenizer.encode_batch(text), dtype=dtype)
                    counts.update(_counted(text, table))
                later(partial(clock.call, "write", write, table))
        return dict(counts)


def _counted(text: pa.Array, table: pa.Table) -> dict[str, int]:
    lengths = pc.list_value_length(table.column("input_ids"))
    return {
        "rows": table.num_rows,
        "tokens": pc.sum(lengths).as_py() or 0,
        "text_bytes": pc.sum(pc.binary_length(text)).as_py() or 0,
        "documents_empty": int(np.count_nonzero(lengths.to_numpy() == 0)),
    }


def _check_rows(path: Path, rows: int) -> None:
    found = read_table(path).num_rows
    if found != rows:
        raise InputError(f"{path}: {found} rows written of {rows}")
