"""Rows of Python values, as JSON gives them, as record batches of the needed columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from colophon.pipeline.inputs.columns import BATCH_BYTES, BATCH_ROWS, ColumnNeed
from colophon.pipeline.inputs.conversion import array_of


def batches_of_rows(rows: Iterable[Mapping[str, Any]], needs: Sequence[ColumnNeed]) -> Iterator[pa.RecordBatch]:
    """Rows under the input's names as batches under FineWeb's: at most `BATCH_ROWS` rows or about `BATCH_BYTES`."""
    batch: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
            yield _record_batch(batch, needs)
            batch, size = [], 0
    if batch:
        yield _record_batch(batch, needs)


def _record_batch(rows: Sequence[Mapping[str, Any]], needs: Sequence[ColumnNeed]) -> pa.RecordBatch:
    arrays = {need.name: _array([row.get(need.in_input) for row in rows], need) for need in needs}
    return pa.RecordBatch.from_pydict(arrays)


def _array(values: Sequence[Any], need: ColumnNeed) -> pa.Array:
    return array_of(values, need.type, nested_as_json=need.read_as is not None)
