"""Columns of a batch in the types that annotators work on, with an error that names the column."""

from __future__ import annotations

import pyarrow as pa

from colophon.annotators.base import AnnotatorError


def string_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Column `name` as a `string` or `large_string` array; dictionaries are decoded, an all-null column is accepted.

    Raises:
        AnnotatorError: no such column, or not text (binary and numbers are never converted to text).
    """
    column = _column(batch, name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_large_string(kind) or pa.types.is_string(kind):
        return column if kind == column.type else column.cast(kind)
    if pa.types.is_null(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    raise AnnotatorError(f"column '{name}' has type {column.type}; text (string or large_string) is needed")


def number_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Column `name` as `float32` (from float16, float32) or `float64` (from every other number type).

    Raises:
        AnnotatorError: no such column, or not a number (numbers written as text are not parsed).
    """
    column = _column(batch, name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return column.cast(pa.float64(), safe=False)
    raise AnnotatorError(f"column '{name}' has type {column.type}; a number is needed")


def typed_column(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
    """Column `name` as `kind`, see `Annotator.typed`; an all-null column is accepted.

    Raises:
        AnnotatorError: no such column, or it has a different type.
    """
    if pa.types.is_string(kind):
        return string_column(batch, name).cast(kind)
    column = _column(batch, name)
    if column.type.equals(kind) or pa.types.is_null(column.type):
        return column.cast(kind)
    raise AnnotatorError(f"column '{name}' has type {column.type}; {kind} is needed")


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    if batch.schema.get_field_index(name) < 0:
        raise AnnotatorError(f"expected one column '{name}'; columns: {', '.join(batch.schema.names) or 'none'}")
    return batch.column(name)
