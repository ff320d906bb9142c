"""Rows of Python values as record batches of the needed columns, by one rule for JSON lines and WARC records.

A string column takes strings; in the column of ids, numbers too, as they are spelt. A column of numbers takes numbers,
booleans, and strings that hold a number. Any other value, such as a list as a URL, becomes null and is counted.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from colophon.pipeline.inputs.columnar.conversion import array_of
from colophon.pipeline.inputs.columns import BATCH_BYTES, BATCH_ROWS, ColumnNeed


@dataclass(frozen=True)
class Number:
    """A number as its file spells it: `18446744073709551616`, `0.10`, `1e400`, `NaN`."""

    spelling: str


class WrongTypeError(ValueError):
    """A value that its column cannot hold."""


def row_batches(
    rows: Iterable[tuple[Sequence[Any], int]], needs: Sequence[ColumnNeed], *, wrong: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """Record batches of at most `BATCH_ROWS` rows or about `BATCH_BYTES`, under FineWeb names.

    Args:
        rows: for each row the values of `needs`, in that order, and the row's size in bytes.
        needs: the columns.
        wrong: gets, by FineWeb name, the values that became null because of their type.
    """
    batch: list[Sequence[Any]] = []
    size = 0
    for values, num_bytes in rows:
        batch.append(values)
        size += num_bytes
        del values
        if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
            yield _record_batch(batch, needs, wrong)
            size = 0
    if batch:
        yield _record_batch(batch, needs, wrong)


def _record_batch(rows: list[Sequence[Any]], needs: Sequence[ColumnNeed], wrong: Counter[str]) -> pa.RecordBatch:
    """The batch of the rows; the list is emptied, so that the caller holds no values beside it."""
    arrays = {}
    columns = list(zip(*rows, strict=True))
    rows.clear()
    for need, values in zip(needs, columns, strict=True):
        arrays[need.name], num_wrong = typed_array(values, need)
        wrong[need.name] += num_wrong
    return pa.RecordBatch.from_pydict(arrays)


def typed_array(values: Sequence[Any], need: ColumnNeed) -> tuple[pa.Array, int]:
    """The values in the column's type, null where they do not fit, and the number of those."""
    if need.read_as is not None:
        plain = [_plain(value) for value in values]
        array = array_of(plain, need.read_as, nested_as_json=need.nested_as_json)
        return array, 0 if need.nested_as_json else array.null_count - sum(value is None for value in plain)
    kind = need.type
    if kind is None:
        kind, convert = _kind_of(values)
    elif pa.types.is_string(kind):
        convert = _id if need.name == "id" else _string
    else:
        convert = _integer if pa.types.is_integer(kind) else _float
    if convert is not _integer:  # Arrow would cut 3.5 to 3
        try:
            return pa.array(values, kind), 0
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            pass
    return _converted(values, kind, convert)


def _plain(value: Any) -> Any:
    return json.loads(value.spelling) if isinstance(value, Number) else value


def _kind_of(values: Sequence[Any]) -> tuple[pa.DataType, Callable[[Any], Any]]:
    """The type of a column of no known type: numbers if most of its strings and numbers are."""
    num_strings = sum(isinstance(value, str) for value in values)
    num_numbers = sum(isinstance(value, int | float | Number) for value in values)
    return (pa.float64(), _float) if num_numbers > num_strings else (pa.string(), _string)


def _converted(values: Sequence[Any], kind: pa.DataType, convert: Callable[[Any], Any]) -> tuple[pa.Array, int]:
    converted, num_wrong = [], 0
    for value in values:
        try:
            converted.append(None if value is None else convert(value))
        except (TypeError, ValueError, OverflowError):
            converted.append(None)
            num_wrong += 1
    return pa.array(converted, kind), num_wrong


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise WrongTypeError
    value.encode()  # half a surrogate pair is not a character
    return value


def _id(value: Any) -> str:
    if isinstance(value, Number) and not math.isnan(float(value.spelling)) and "Inf" not in value.spelling:
        return value.spelling
    return str(value) if type(value) is int else _string(value)


def _float(value: Any) -> float:
    spelling = value.spelling if isinstance(value, Number) else value
    number = float(spelling)
    if math.isinf(number) and isinstance(value, Number) and "Inf" not in value.spelling:
        raise WrongTypeError  # 1e400
    return number


def _integer(value: Any) -> int:
    number = _number(value.spelling if isinstance(value, Number) else value)
    whole = int(number)
    if whole != number or not -(2**63) <= whole < 2**63:
        raise WrongTypeError  # 3.5, or more than 64 bits
    return whole


def _number(value: Any) -> int | float:
    """A number, or the number in a string: an int where possible, so that no digit is lost."""
    if not isinstance(value, str):
        return value if isinstance(value, int) else float(value)
    try:
        return int(value)
    except ValueError:
        return float(value)
