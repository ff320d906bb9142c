"""The types of exported columns: those that polars, Hugging Face `datasets` and DuckDB all read.

    kept         strings, booleans, integers, floats, decimals of up to 38 digits, binary data, dates, times, durations,
                 timestamps (in UTC if they have a time zone); lists and structs of strings, booleans, numbers and bytes
    strings      other decimals, UUIDs, intervals; other nested columns as JSON, in which bytes are hexadecimal

Where files differ, integers become int64, integers and floats float64, and any other difference makes strings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from colophon.pipeline.inputs.columnar.conversion import converted, is_text, json_text, plain_type, strings_of

_LISTS = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list, kinds.is_list_view, kinds.is_large_list_view)
_BYTES = (kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view, kinds.is_fixed_size_binary)
_SAME = (kinds.is_null, kinds.is_boolean, kinds.is_integer, kinds.is_float32, kinds.is_float64)
_CLOCKS = (kinds.is_time, kinds.is_duration)
_DIGITS = 38
_FIRST_DAY, _LAST_DAY = np.datetime64("0001-01-01"), np.datetime64("9999-12-31")
"""The years of Python's dates: readers that give Python values fail beyond them."""


def export_type(column_type: pa.DataType) -> pa.DataType:
    """The type in which a column of this type is exported; a column of nulls has the type null as yet."""
    kind = plain_type(column_type)
    if kinds.is_decimal(kind):
        return (
            pa.decimal128(kind.precision, kind.scale) if kind.precision <= _DIGITS and kind.scale >= 0 else pa.string()
        )
    if kinds.is_timestamp(kind):
        return pa.timestamp(_unit(kind.unit), None if kind.tz is None else "UTC")
    if kinds.is_date(kind):
        return pa.date32()
    simple = _simple_type(kind)
    if simple is not None:
        return simple
    return kind if _is_one_of(kind, _CLOCKS) else pa.string()


def _unit(unit: str) -> str:
    return "ms" if unit == "s" else unit  # Parquet has no seconds


def _simple_type(column_type: pa.DataType) -> pa.DataType | None:
    """The exported type of strings, booleans, numbers, bytes, and lists and structs of them; None for others."""
    kind = plain_type(column_type)
    if kinds.is_struct(kind):
        return _simple_struct(kind)
    if _is_one_of(kind, _LISTS):
        item = _simple_type(kind.value_type)
        return None if item is None or kinds.is_null(item) else pa.list_(item)
    if _is_one_of(kind, _SAME):
        return kind
    named = {pa.string(): is_text(kind), pa.float32(): kinds.is_float16(kind), pa.binary(): _is_one_of(kind, _BYTES)}
    return next((simple for simple, is_it in named.items() if is_it), None)


def _simple_struct(kind: pa.DataType) -> pa.DataType | None:
    fields = [(field.name, _simple_type(field.type)) for field in kind]
    names = {name for name, _ in fields}
    is_simple = fields and len(names) == len(fields) and not any(t is None or kinds.is_null(t) for _, t in fields)
    return pa.struct(fields) if is_simple else None


def common_type(types: Collection[pa.DataType]) -> pa.DataType:
    """One type for the columns of all files, from the results of `export_type`; see the module."""
    known = {kind for kind in types if not kinds.is_null(kind)}
    if len(known) == 1:
        return known.pop()
    if known and all(kinds.is_integer(kind) for kind in known):
        return _common_integer(known)
    if known and all(kinds.is_integer(kind) or kinds.is_floating(kind) for kind in known):
        return pa.float64()
    return pa.string()


def _common_integer(types: Collection[pa.DataType]) -> pa.DataType:
    if all(kinds.is_unsigned_integer(kind) for kind in types):
        return pa.uint64()
    return pa.string() if pa.uint64() in types else pa.int64()


def is_calendar(column_type: pa.DataType) -> bool:
    """Whether a type holds dates or timestamps."""
    return bool(kinds.is_date(column_type) or kinds.is_timestamp(column_type))


def in_python_years(array: pa.Array) -> bool:
    """Whether all dates or timestamps are in the years 1 to 9999."""
    kind = array.type
    unit = ("D" if kinds.is_date32(kind) else "ms") if kinds.is_date(kind) else kind.unit
    counts = array.view(pa.int32() if kinds.is_date32(kind) else pa.int64()).drop_null()
    moments = counts.to_numpy(zero_copy_only=False).astype("int64").view(f"datetime64[{unit}]")
    if not len(moments):
        return True
    days = moments.astype("datetime64[D]")
    return bool(days.min() >= _FIRST_DAY and days.max() <= _LAST_DAY)  # false for NaT


def exported(array: pa.Array, target: pa.DataType) -> pa.Array:
    """A column as a reader gives it, in its exported type."""
    array, _ = converted(array, None)
    if array.null_count == len(array):
        return pa.nulls(len(array), target)
    if kinds.is_string(target):
        return _strings(array)
    if kinds.is_nested(target):
        array = _rebuilt(array, _simple_leaf)
    return array.cast(target, safe=False)


def _strings(array: pa.Array) -> pa.Array:
    if not kinds.is_nested(array.type):
        return _text_leaf(array)
    values = _rebuilt(array, _json_leaf).to_pylist()
    return pa.array([None if value is None else json_text(value) for value in values], pa.string())


def _rebuilt(array: pa.Array, leaf: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Lists, structs and maps with each column of their values replaced; maps become lists of keys and values."""
    array, _ = converted(array, None)
    kind = array.type
    if kinds.is_map(kind):
        pairs = pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)])
        return _rebuilt(array.cast(pa.list_(pairs)), leaf)
    if _is_one_of(kind, _LISTS):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return pa.ListArray.from_arrays(offsets, _rebuilt(array.flatten(), leaf), mask=array.is_null())
    if kinds.is_struct(kind) and kind.num_fields:
        children = [_rebuilt(child, leaf) for child in array.flatten()]
        return pa.StructArray.from_arrays(children, [field.name for field in kind], mask=array.is_null())
    return leaf(array)


def _simple_leaf(array: pa.Array) -> pa.Array:
    kind = _simple_type(array.type)
    return array if kind is None else array.cast(kind)


def _json_leaf(array: pa.Array) -> pa.Array:
    """A column as JSON has it: numbers and booleans as they are, others as strings."""
    kind = array.type
    is_json = kinds.is_nested(kind) or _is_one_of(kind, _SAME)
    return array if is_json else _text_leaf(array)


def _text_leaf(array: pa.Array) -> pa.Array:
    if is_text(array.type):
        return array.cast(pa.string())
    if _is_one_of(array.type, _BYTES):
        return pa.array([None if value is None else value.hex() for value in array.to_pylist()], pa.string())
    try:
        return strings_of(array)
    except pa.ArrowNotImplementedError:  # intervals
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())


def _is_one_of(column_type: pa.DataType, tests: Collection[Callable[[pa.DataType], bool]]) -> bool:
    return any(test(column_type) for test in tests)
