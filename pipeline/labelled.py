"""Labelled texts for training and testing classifiers: Parquet or JSONL files with a text and a label column."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, UsageError
from pipeline.inputs import ColumnNeed, plan_inputs
from pipeline.readers import PartitionReader
from pipeline.recipe import InputSection


def read_labelled(paths: Sequence[str], *, text: str, label: str) -> tuple[pa.Array, pa.Array]:
    """Texts and labels, both string [num_rows]; rows without a text or a label are left out.

    Raises:
        UsageError: a file that cannot be read or lacks a column, or no row at all.
    """
    needs = (ColumnNeed("text", text), ColumnNeed("label", label))
    inputs = plan_inputs(InputSection(paths=list(paths)), needs=needs)
    for entry in inputs.quarantine:
        raise UsageError(f"{entry.source}: {entry.reason}")
    batches = []
    for partition in inputs.partitions:
        try:
            batches += [_strings(batch) for batch in PartitionReader(partition, needs, stage="labels")]
        except InputError as error:
            raise UsageError(f"{partition.source}: {error}") from error
    table = pa.Table.from_batches(batches, pa.schema([("text", pa.string()), ("label", pa.string())]))
    table = table.filter(pc.and_(pc.is_valid(table["text"]), pc.is_valid(table["label"])))
    if not table.num_rows:
        raise UsageError(f"{', '.join(paths)}: no row has both {text!r} and {label!r}")
    return table["text"].combine_chunks(), table["label"].combine_chunks()


def _strings(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [batch.column(name).cast(pa.string()) for name in ("text", "label")]
    return pa.RecordBatch.from_arrays(columns, ["text", "label"])
