"""The conversion of needed columns to FineWeb's types, by one rule for all formats.

    to string    strings; integers, decimals and floats in decimal notation (1.0 is `1`); `true`, `false`; UUIDs;
                 dates and timestamps in ISO 8601: `2024-03-01`, `2024-03-01T12:30:00.5`, with a time zone in UTC and
                 with `Z`. Python's range of years is no limit: `12000-01-01`
    to a number  numbers, booleans, decimals, and strings that hold a number. A value that does not fit is null: text
                 that is no number, 3.5 as an integer, an integer beyond 64 bits
    to a boolean booleans, the numbers 0 and 1, and the strings `true` and `false`, in any case
    to a list    of strings: lists of what a string is converted from, without their nulls; any other value that can be
                 converted to a string is a list of one
                 of numbers: lists of what a number is converted from; a value that does not fit is NaN

Encodings (dictionary, run-end, views, large offsets) and extension types are those of the values they hold. Structs,
maps, binary data and times of day cannot be converted, lists only to lists: such a column is found when a run is
planned.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from colophon.pipeline.errors import InputError
from colophon.shards.common.times import iso_8601

_TEXTS = (kinds.is_string, kinds.is_large_string, kinds.is_string_view)
_NUMBERS = (kinds.is_boolean, kinds.is_integer, kinds.is_floating, kinds.is_decimal, kinds.is_null)
_TIMES = (kinds.is_timestamp, kinds.is_date)
_LISTS = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list, kinds.is_list_view, kinds.is_large_list_view)
_LIST_TYPES = {
    kinds.is_list: pa.list_,
    kinds.is_large_list: pa.large_list,
    kinds.is_list_view: pa.list_view,
    kinds.is_large_list_view: pa.large_list_view,
}
_BARE = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
    pa.date64(): pa.int64(),
}
_LARGEST_LIST = 256 << 20
"""The most bytes of the strings in one document's list: a dictionary of long values can claim any number."""


def is_text(column_type: pa.DataType) -> bool:
    """Whether a column of this type holds strings, in any encoding."""
    return _is_one_of(plain_type(column_type), _TEXTS)


def can_convert(column_type: pa.DataType, target: pa.DataType | None) -> bool:
    """Whether `converted` accepts a column of this type. If `target` is None it accepts any."""
    if target is None:
        return True
    kind = plain_type(column_type)
    if kinds.is_list(target):
        if not _is_one_of(kind, _LISTS):
            return kinds.is_null(kind) if _is_vector(target) else can_convert(kind, target.value_type)
        return can_convert(kind.value_type, target.value_type)
    accepted = (*_TEXTS, *_NUMBERS, *((*_TIMES, _is_uuid) if kinds.is_string(target) else ()))
    return _is_one_of(kind, accepted)


def plain_type(column_type: pa.DataType) -> pa.DataType:
    """The type of a column's values without dictionary, run-end encoding or extension; UUIDs stay an extension."""
    if kinds.is_dictionary(column_type) or kinds.is_run_end_encoded(column_type):
        return plain_type(column_type.value_type)
    if isinstance(column_type, pa.BaseExtensionType) and not _is_uuid(column_type):
        return plain_type(column_type.storage_type)
    return column_type


def bare_type(column_type: pa.DataType) -> pa.DataType:
    """The type with the same buffers whose values have no rules: of text its bytes, of dates and times integers."""
    kind = column_type
    if kinds.is_time(kind):
        bare = pa.int32() if kind.bit_width == 32 else pa.int64()
    elif kinds.is_dictionary(kind):
        bare = pa.dictionary(kind.index_type, bare_type(kind.value_type), kind.ordered)
    elif kinds.is_fixed_size_list(kind):
        bare = pa.list_(bare_type(kind.value_type), kind.list_size)
    elif kinds.is_map(kind):
        bare = pa.map_(bare_type(kind.key_type), bare_type(kind.item_type))
    elif kinds.is_struct(kind):
        bare = pa.struct([field.with_type(bare_type(field.type)) for field in kind])
    elif (list_type := next((new for test, new in _LIST_TYPES.items() if test(kind)), None)) is not None:
        bare = list_type(kind.value_field.with_type(bare_type(kind.value_type)))
    else:
        bare = _BARE.get(kind, kind)
    return bare


def decoded_bytes(array: pa.Array) -> int:
    """About how many bytes `converted` gives: dictionaries and run-end encoding may hold many rows in few bytes."""
    kind = array.type
    if kinds.is_run_end_encoded(kind):
        values = array.values
        return len(array) * max(decoded_bytes(values.slice(place, 1)) for place in range(len(values))) if values else 0
    if _is_one_of(kind, _LISTS):
        return 8 * len(array) + decoded_bytes(array.flatten())
    if not kinds.is_dictionary(kind):
        return int(array.nbytes)
    if not is_text(kind.value_type):
        return 8 * len(array)
    lengths = pc.binary_length(array.dictionary.cast(pa.large_string()))
    return 8 * len(array) + int(pc.sum(lengths.take(array.indices)).as_py() or 0)


def converted(array: pa.Array, target: pa.DataType | None) -> tuple[pa.Array, int]:
    """A column as `target`, or in the type of its values if that is None; see the module.

    Strings may have large offsets. Bytes in them that are not UTF-8 are replaced by U+FFFD.

    Returns:
        The array, and how many of its values had such bytes.
    """
    array = values_of(array)
    if target is not None and kinds.is_list(target):
        return _lists(array, target), 0
    if _is_one_of(array.type, _TEXTS):
        array, num_repaired = _utf8(array)
        is_done = target is None or kinds.is_string(target)
        return (array if is_done else array_of(array.to_pylist(), target)), num_repaired
    if target is None or array.type.equals(target):
        return array, 0
    if kinds.is_string(target):
        return strings_of(array), 0
    if kinds.is_floating(target) and not kinds.is_decimal(array.type):
        return array.cast(target, safe=False), 0  # integers above 2^53 are rounded
    return array_of(array.to_pylist(), target), 0


def _lists(array: pa.Array, target: pa.DataType) -> pa.Array:
    """A list of strings or numbers for each value, see the module.

    Raises:
        InputError: the values of one list are too long.
    """
    if kinds.is_null(array.type):
        return pa.nulls(len(array), target)
    if not _is_one_of(array.type, _LISTS):
        items, _ = converted(array, target.value_type)
        lengths = items.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
    else:
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        items = array.flatten()
        if decoded_bytes(items) > _LARGEST_LIST * max(len(array), 1):
            raise InputError(f"the values of a list have more than {_LARGEST_LIST:,} bytes")
        items, _ = converted(items, target.value_type)
        items = pc.fill_null(items, np.nan) if _is_vector(target) else items
        rows = np.repeat(np.arange(len(array)), lengths)
        lengths = np.bincount(rows[items.is_valid().to_numpy(zero_copy_only=False)], minlength=len(array))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    values = items.drop_null().cast(target.value_type)
    return pa.ListArray.from_arrays(offsets, values, type=target, mask=array.is_null())


def array_of(values: Sequence[Any], target: pa.DataType | None, *, nested_as_json: bool = False) -> pa.Array:
    """Values of JSON or CSV as `target`; if that is None, Arrow chooses the type.

    Lists and objects are null in a column of strings, or JSON if `nested_as_json`.
    """
    if target is None:
        return pa.array(values)
    if kinds.is_list(target):
        return _lists_of(values, target)
    if kinds.is_boolean(target):
        return pa.array(list(map(_boolean, values)), target)
    if not kinds.is_string(target):
        return numbers(values, target)
    nested = json_text if nested_as_json else _no_text
    texts = [v if v is None or isinstance(v, str) else _string(v, nested) for v in values]
    try:
        return pa.array(texts, target)
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape
        return pa.array([v and v.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for v in texts], target)


def _lists_of(values: Sequence[Any], target: pa.DataType) -> pa.Array:
    """A list of strings for each value, of an object none; a list of numbers for each list."""
    skipped = object if _is_vector(target) else dict
    lists = [value if isinstance(value, list) else None if isinstance(value, skipped) else [value] for value in values]
    items = array_of([item for items in lists for item in items or ()], target.value_type)
    offsets = pa.array(np.cumsum([0, *(len(items or ()) for items in lists)]), pa.int32())
    is_null = pa.array([value is None or items is None for value, items in zip(values, lists, strict=True)], pa.bool_())
    return _lists(pa.ListArray.from_arrays(offsets, items, mask=is_null), target)


def json_text(value: Any) -> str | None:
    """A value as JSON, in one line; None if it is nested more deeply than Python can write."""
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:  # half of a surrogate pair, or an integer beyond 64 bits
        return _by_python(value)


def _by_python(value: Any) -> str | None:
    try:
        return json.dumps(value, default=str)
    except RecursionError:
        return None


def numbers(values: Sequence[Any], target: pa.DataType) -> pa.Array:
    """Python values as an array of integers or floats; null where a value is no number of that type."""
    as_number = _integer if kinds.is_integer(target) else _float
    return pa.array([None if value is None else as_number(value) for value in values], target)


def strings_of(array: pa.Array) -> pa.Array:
    """Numbers, booleans, dates, timestamps or UUIDs as strings; see the module."""
    if _is_uuid(array.type):
        values = array.storage.to_pylist()
        return pa.array([None if value is None else str(uuid.UUID(bytes=value)) for value in values], pa.string())
    return iso_8601(array) if _is_one_of(array.type, _TIMES) else array.cast(pa.string())


def _is_one_of(column_type: pa.DataType, tests: Sequence[Any]) -> bool:
    return any(test(column_type) for test in tests)


def _is_vector(column_type: pa.DataType) -> bool:
    return bool(kinds.is_list(column_type) and kinds.is_floating(column_type.value_type))


def _is_uuid(column_type: pa.DataType) -> bool:
    return isinstance(column_type, pa.UuidType)


def values_of(array: pa.Array) -> pa.Array:
    """The values of an array without dictionary, run-end encoding, views or extension; UUIDs stay an extension."""
    kind = array.type
    if kinds.is_dictionary(kind):
        return values_of(array.dictionary).take(array.indices)
    if kinds.is_run_end_encoded(kind):
        runs = pa.RunEndEncodedArray.from_arrays(array.run_ends, pa.array(range(len(array.values)), pa.int32()))
        places = pc.run_end_decode(runs).slice(array.offset, len(array))
        return values_of(array.values).take(places)
    if isinstance(kind, pa.BaseExtensionType) and not _is_uuid(kind):
        return values_of(array.storage)
    if kinds.is_binary_view(kind):
        return array.cast(pa.large_binary())
    return array.cast(pa.large_string()) if kinds.is_string_view(kind) else array


def _utf8(array: pa.Array) -> tuple[pa.Array, int]:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return _repaired(array)
    return array, 0


def _repaired(array: pa.Array) -> tuple[pa.Array, int]:
    values = array.cast(pa.large_binary() if kinds.is_large_string(array.type) else pa.binary()).to_pylist()
    texts = [None if value is None else value.decode("utf-8", errors="replace") for value in values]
    num_repaired = sum(text is not None and text.encode() != value for text, value in zip(texts, values, strict=True))
    return pa.array(texts, array.type), num_repaired


def _string(value: Any, nested: Callable[[Any], str | None]) -> str | None:
    if isinstance(value, list | dict):
        return nested(value)
    if isinstance(value, bool | float):
        text: str = pa.array([value]).cast(pa.string())[0].as_py()
        return text
    return str(value)


def _boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def _no_text(_: Any) -> None:
    return None


def _integer(value: Any) -> int | None:
    try:
        number = int(value)
        is_whole = isinstance(value, str) or number == value
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        return None
    return number if is_whole and -(2**63) <= number < 2**63 else None


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None
