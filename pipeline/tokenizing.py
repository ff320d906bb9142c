"""tokenize: a partition's texts as ids, once, for every layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.inputs import ColumnNeed
from pipeline.readers import PartitionReader
from pipeline.store import Store
from pipeline.work import Task, TaskResult
from shards.files import read_table, tokens_table, write_table
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
        """Load the vocabulary."""
        return TokenizeWorker(self, load_tokenizer(self.tokenizer, num_meta_tokens=self.num_meta_tokens))


class TokenizeWorker:
    """Turns texts into ids."""

    def __init__(self, stage: TokenizeStage, tokenizer: Tokenizer) -> None:
        self._stage = stage
        self._tokenizer = tokenizer

    def work(self, task: Task) -> TaskResult:
        """Tokenize one partition: read, encode batch by batch, commit one row-aligned file."""
        reader = PartitionReader(task.partition, self._stage.needs, stage="tokenize")
        tables, text_bytes = [], 0
        for batch in reader:
            text = batch.column("text")
            ids = self._tokenizer.encode_batch(text)
            tables.append(tokens_table(batch.column("id"), ids, dtype=self._tokenizer.dtype))
            text_bytes += pc.sum(pc.binary_length(text)).as_py() or 0
        empty = tokens_table(pa.array([], pa.string()), self._no_ids(), dtype=self._tokenizer.dtype)
        table = pa.concat_tables([empty, *tables])
        lengths = pc.list_value_length(table.column("input_ids"))
        counts = {
            "tokens": pc.sum(lengths).as_py() or 0,
            "text_bytes": text_bytes,
            "documents_empty": int(np.count_nonzero(lengths.to_numpy() == 0)),
            "texts_null": reader.texts_null,
            "texts_repaired": reader.texts_repaired,
            "lines_bad": len(reader.problems),
        }
        record = self._stage.store.commit(
            stage=STAGE,
            partition=task.partition.name,
            suffix=SUFFIX,
            write=lambda path: write_table(path, table.combine_chunks()),
            check=lambda path: _check_rows(path, table.num_rows),
            rows=table.num_rows,
            fingerprint=task.outputs[STAGE],
            counts=counts,
            problems=reader.problems,
        )
        return TaskResult(records=(record,), documents=table.num_rows, text_bytes=text_bytes)

    def _no_ids(self) -> pa.Array:
        return pa.array([], pa.list_(pa.from_numpy_dtype(self._tokenizer.dtype)))


def _check_rows(path: Path, rows: int) -> None:
    found = read_table(path).num_rows
    if found != rows:
        raise InputError(f"{path}: {found} rows written of {rows}")
