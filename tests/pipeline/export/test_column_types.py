"""The types of exported columns: every type of Arrow has one, and no value is lost."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.pipeline.export.column_types import common_type, export_type, exported, in_python_years

LEAVES = [
    *(pa.string(), pa.large_string(), pa.string_view(), pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64()),
    *(pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3), pa.date32(), pa.date64(), pa.time32("s")),
    *(pa.time64("ns"), pa.duration("ms"), pa.timestamp("s"), pa.timestamp("ns", "Mars/Olympus"), pa.decimal32(5, 2)),
    *(pa.decimal128(38, 5), pa.decimal256(60, 5), pa.null(), pa.uuid(), pa.month_day_nano_interval()),
]


def leaf(kind: pa.DataType, rows: int) -> pa.Array:
    if pa.types.is_null(kind):
        return pa.nulls(rows)
    if isinstance(kind, pa.UuidType):
        return pa.array([bytes([n]) * 16 for n in range(rows)], kind)
    if kind == pa.month_day_nano_interval():
        return pa.array([(n, n, n) for n in range(rows)], kind)
    if kind in LEAVES[:3] or pa.types.is_binary(kind) or kind in (pa.large_binary(), pa.binary_view(), pa.binary(3)):
        values = pa.array([f"{n:03}" for n in range(rows)])
        return pa.array([v.encode() for v in values.to_pylist()], kind) if "bin" in str(kind) else values.cast(kind)
    if pa.types.is_temporal(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array(range(0, 1000 * rows, 1000), width).view(kind)  # Python has no nanoseconds
    as_value = Decimal if pa.types.is_decimal(kind) else int
    return pa.array([as_value(n % 2) for n in range(rows)]).cast(kind)


@st.composite
def arrays(draw: st.DrawFn) -> pa.Array:
    """Six rows in up to two levels of lists, structs, maps and encodings, some of them null, sliced to four."""
    array = leaf(draw(st.sampled_from(LEAVES)), 12)
    rows, null = 12, pa.array([n == 3 for n in range(12)])
    for wrap in draw(
        st.lists(st.sampled_from(["list", "struct", "map", "dictionary", "view", "fixed", "runs"]), max_size=2)
    ):
        mask = null.slice(0, rows)
        offsets = pa.array(range(rows + 1), pa.int32())
        if wrap == "struct":
            array = pa.StructArray.from_arrays([array, pa.array(range(rows))], ["a", "b"], mask=mask)
        elif wrap == "map":
            array = pa.MapArray.from_arrays(offsets, pa.array([f"k{n}" for n in range(rows)]), array)
        elif wrap == "dictionary" and not pa.types.is_nested(array.type) and not pa.types.is_null(array.type):
            places = pa.array([None if n == 3 else n for n in range(rows)])
            array = pa.DictionaryArray.from_arrays(places, array)
        elif wrap == "runs" and not pa.types.is_nested(array.type):
            array = pa.RunEndEncodedArray.from_arrays(pa.array(range(1, rows + 1), pa.int32()), array)
        elif wrap == "list":
            array = pa.ListArray.from_arrays(offsets, array, mask=mask)
        elif wrap == "view":
            array = pa.ListViewArray.from_arrays(offsets.slice(0, rows), pa.array([1] * rows, pa.int32()), array)
        elif wrap == "fixed":
            array = pa.FixedSizeListArray.from_arrays(array, 2)
            rows //= 2
    return array.slice(1, max(rows - 2, 1))


@given(arrays())
def test_every_column_is_exported_as_polars_reads_it(array: pa.Array) -> None:
    kind = common_type([export_type(array.type)])
    column = exported(array, kind)
    column.validate(full=True)
    assert column.type == kind
    assert len(column) == len(array)
    assert not column.null_count < array.null_count
    file = io.BytesIO()
    pq.write_table(pa.table({"x": column}), file)
    assert pl.read_parquet(file.getvalue())["x"].to_list() == column.to_pylist()


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (pa.array([{"a": 1, "b": None}, None]), '{"a":1,"b":null}'),
        (pa.array([[1.5, None], None]), "[1.5,null]"),
        (pa.array([[0], None], pa.list_(pa.timestamp("s", "Mars/Olympus"))), '["1970-01-01T00:00:00Z"]'),
        (pa.array([{"d": 99999999}, None], pa.struct([("d", pa.date32())])), '{"d":"275760-09-12"}'),
        (pa.array([[("k", b"\xff")], None], pa.map_(pa.string(), pa.binary())), '[{"key":"k","value":"ff"}]'),
        (pa.array([{}, None], pa.struct([])), "{}"),
        (pa.array([True, None]), "true"),
        (pa.array([b"\xff", None]), "ff"),
    ],
)
def test_values_as_strings(array: pa.Array, text: str) -> None:
    assert exported(array, pa.string()).to_pylist() == [text, None]


def test_nested_strings_are_repaired() -> None:
    items = pa.array([b"caf\xe9", b"ok"]).view(pa.string())
    array = pa.ListArray.from_arrays(pa.array([0, 2]), items)
    assert exported(array, export_type(array.type)).to_pylist() == [["caf\ufffd", "ok"]]
    assert json.loads(exported(array, pa.string())[0].as_py()) == ["caf\ufffd", "ok"]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([pa.int8(), pa.int64(), pa.uint32()], pa.int64()),
        ([pa.uint8(), pa.uint64()], pa.uint64()),
        ([pa.int8(), pa.uint64()], pa.string()),
        ([pa.int64(), pa.float32()], pa.float64()),
        ([pa.null(), pa.bool_()], pa.bool_()),
        ([pa.null()], pa.string()),
        ([pa.bool_(), pa.int64()], pa.string()),
        ([pa.date32(), pa.timestamp("us")], pa.string()),
        ([pa.list_(pa.int64()), pa.list_(pa.string())], pa.string()),
    ],
)
def test_one_type_for_columns_that_differ(kinds: list[Any], expected: pa.DataType) -> None:
    assert common_type(kinds) == expected


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("us", "UTC")], ids=str)
def test_years_that_python_has(kind: pa.DataType) -> None:
    unit = {pa.date32(): "D", pa.date64(): "ms"}.get(kind) or kind.unit
    days = ["0001-01-01", "9999-12-31", "0000-12-31", "10000-01-01"]
    for day in days:
        count = np.array([day], "datetime64[D]").astype(f"datetime64[{unit}]").astype("int64")
        array = pa.array(count, pa.int32() if kind == pa.date32() else pa.int64()).view(kind)
        assert in_python_years(array) == (day in days[:2])
    assert in_python_years(pa.nulls(2, kind))
