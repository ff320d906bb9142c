"""Texts for training: labelled texts for classifiers (a text and a label column), plain texts for tokenizers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from colophon.pipeline.errors import InputError, UsageError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.error_messages import validated
from colophon.pipeline.recipe.schema import InputSection

_READ_AS = {"label": pa.string()}
"""The types of the columns that FineWeb does not have."""


def read_labelled(paths: Sequence[str], *, text: str, label: str) -> tuple[pa.Array, pa.Array]:
    """Texts and labels, both string [num_rows]; rows without a text or a label are dropped.

    Raises:
        UsageError: a file that cannot be read or lacks a column, or no row at all.
    """
    batches = [_strings(batch) for batch in _read(paths, {"text": text, "label": label})]
    table = pa.Table.from_batches(batches, pa.schema([("text", pa.string()), ("label", pa.string())]))
    table = table.filter(pc.and_(pc.is_valid(table["text"]), pc.is_valid(table["label"])))
    if not table.num_rows:
        raise UsageError(f"{', '.join(paths)}: no row has both {text!r} and {label!r}")
    return table["text"].combine_chunks(), table["label"].combine_chunks()


def read_texts(paths: Sequence[str], *, text: str, max_bytes: int) -> Iterator[pa.Array]:
    """Texts, string arrays in the input's order, until `max_bytes` of them have been read.

    Raises:
        UsageError: a file that cannot be read or lacks the column.
    """
    left = max_bytes
    for batch in _read(paths, {"text": text}):
        texts = batch.column("text")
        yield texts
        left -= pc.sum(pc.binary_length(texts)).as_py() or 0
        if left <= 0:
            return


def _read(paths: Sequence[str], columns: dict[str, str]) -> Iterator[pa.RecordBatch]:
    """All rows of the files. Training quarantines nothing: a row that cannot be read is an error."""
    needs = [ColumnNeed(name, in_input, read_as=_READ_AS.get(name)) for name, in_input in columns.items()]
    config = validated(
        InputSection, {"paths": list(paths), "columns": columns, "partition_bytes": sys.maxsize}, where="training files"
    )
    inputs = plan_inputs(config, needs=needs)
    for entry in inputs.quarantine:
        raise UsageError(f"{entry.source}: {entry.reason}")
    for partition in inputs.partitions:
        reader = PartitionReader(partition, needs, stage="training")
        try:
            yield from reader
        except InputError as error:
            raise UsageError(f"{partition.source}: {error}") from error
        for problem in reader.problems:
            raise UsageError(f"{problem.source}:{problem.line}: {problem.reason}")


def _strings(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [batch.column(name).cast(pa.string()) for name in ("text", "label")]
    return pa.RecordBatch.from_arrays(columns, ["text", "label"])
