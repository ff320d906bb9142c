"""Columns under FineWeb's names: which a stage needs, their types, and rows of Python values as batches of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

BATCH_ROWS = 1024
BATCH_BYTES = 4 << 20
"""The most rows and, about, the most bytes of a batch; a single row may be larger."""

FINEWEB_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("text", "id", "dump", "url", "date", "file_path", "language"), pa.string()),
    "language_score": pa.float64(),
    "token_count": pa.int64(),
    "score": pa.float64(),
    "int_score": pa.int64(),
}
"""The columns of FineWeb and FineWeb-Edu. These names always mean the input's columns."""


@dataclass(frozen=True)
class ColumnNeed:
    """A column that a stage needs: its FineWeb name, its name in the input, and whether it is required."""

    name: str
    in_input: str
    required: bool = True


def missing_columns(schema: pa.Schema, needs: Sequence[ColumnNeed]) -> str | None:
    """The first needed column that `schema` lacks, as one line for an error; None if there is none.

    A text column that does not hold strings counts as missing.
    """
    for need in needs:
        if need.required and need.in_input not in schema.names:
            return f"no column {need.in_input!r}; columns: {', '.join(schema.names)}"
        if need.name == "text":
            column_type = schema.field(need.in_input).type
            if not _is_text(column_type):
                return f"column {need.in_input!r} is {column_type}, not string"
    return None


def _is_text(column_type: pa.DataType) -> bool:
    values = column_type.value_type if pa.types.is_dictionary(column_type) else column_type
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(values) for check in checks)


def plain_strings(array: pa.Array) -> tuple[pa.Array, int]:
    """Decode dictionaries and string views, and replace every byte that is not UTF-8 by U+FFFD.

    Returns:
        The array, and how many of its values had such bytes; arrays of other types are returned as they are.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return array, 0
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return _repaired(array)
    return array, 0


def _repaired(array: pa.Array) -> tuple[pa.Array, int]:
    values = array.cast(pa.large_binary() if pa.types.is_large_string(array.type) else pa.binary()).to_pylist()
    texts = [None if value is None else value.decode("utf-8", errors="replace") for value in values]
    num_repaired = sum(text is not None and text.encode() != value for text, value in zip(texts, values, strict=True))
    return pa.array(texts, array.type), num_repaired


def batches_of_rows(rows: Iterable[Mapping[str, Any]], needs: Sequence[ColumnNeed]) -> Iterator[pa.RecordBatch]:
    """Rows as record batches of at most `BATCH_ROWS` rows or about `BATCH_BYTES` of text."""
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
    types = {need.in_input: FINEWEB_TYPES.get(need.name) for need in needs}
    return pa.RecordBatch.from_pydict({n: _typed_array([row.get(n) for row in rows], t) for n, t in types.items()})


def _typed_array(values: list[Any], column_type: pa.DataType | None) -> pa.Array:
    """An Arrow array of Python values. Numbers that do not fit the type become null, anything fits a string."""
    if column_type is None:
        return pa.array(values)
    if pa.types.is_string(column_type):
        return pa.array([v if v is None or isinstance(v, str) else str(v) for v in values], column_type)
    number_type = int if pa.types.is_integer(column_type) else float
    return pa.array([_number_or_none(v, number_type) for v in values], column_type)


def _number_or_none(value: Any, number_type: type[int] | type[float]) -> float | int | None:
    try:
        return None if value is None else number_type(value)
    except (TypeError, ValueError, OverflowError):
        return None
