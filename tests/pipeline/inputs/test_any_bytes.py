"""Each columnar reader over arbitrary bytes, damaged files and odd schemas: batches or InputError, and all rows.

`test_fuzz.py` does the same for whole runs, in fewer examples.
"""

from __future__ import annotations

import csv
import io
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columns import ColumnNeed
from tests.pipeline.inputs.reading import NEEDS, read

MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
ROWS = 23
SCALAR = [pa.string(), pa.large_string(), pa.string_view(), pa.int64(), pa.uint8(), pa.float32(), pa.bool_()]
OTHER = [pa.null(), pa.binary(), pa.date32(), pa.date64(), pa.timestamp("ns"), pa.timestamp("s", "Mars/Olympus")]
ODD = [pa.time32("s"), pa.duration("us"), pa.decimal128(30, 3), pa.decimal256(60, 2), pa.float16(), pa.binary(3)]
TYPES = [*SCALAR, *OTHER, *ODD]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@cache
def sound(name: str) -> bytes:
    rows = [{"text": f"text {n}", "id": str(n), "url": None if n % 3 else "u", "n": n} for n in range(ROWS)]
    table = pa.Table.from_pylist(rows).append_column("d", pa.array(["x", "y"] * 11 + ["z"]).dictionary_encode())
    sink = pa.BufferOutputStream()
    if name == "a.parquet":
        pq.write_table(table, sink, row_group_size=9)
    elif name == "a.csv":
        text = io.StringIO(newline="")
        csv.writer(text).writerows([["text", "id", "url"], *([f"te\nxt {n}", n, "u"] for n in range(ROWS))])
        return text.getvalue().encode()
    else:
        new = pa.ipc.new_stream if "stream" in name else pa.ipc.new_file
        with new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=9)
    return bytes(sink.getvalue())


NAMES = ("a.parquet", "a.arrow", "stream.arrow", "a.csv")


def rows_of(name: str, data: bytes) -> list[dict[str, Any]] | None:
    """The rows, or None if the file is quarantined; any other exception fails the test."""
    Path(name).write_bytes(data)
    try:
        return read(name)
    except InputError as error:
        assert str(error)
        assert "\n" not in str(error)
        return None


@pytest.mark.parametrize("name", NAMES)
@MANY
@given(data=st.binary(max_size=200), keep=st.integers(0, 60))
def test_arbitrary_bytes(name: str, data: bytes, keep: int) -> None:
    rows = rows_of(name, sound(name)[:keep] + data)
    assert rows is None or name == "a.csv"


@pytest.mark.parametrize("name", NAMES)
@MANY
@given(st.data())
def test_cut_files(name: str, data: st.DataObject) -> None:
    """A CSV file that is cut between two rows looks like a shorter one."""
    length = data.draw(st.integers(0, len(sound(name)) - 1))
    assert rows_of(name, sound(name)[:length]) is None or name == "a.csv"


@pytest.mark.parametrize("name", NAMES)
@MANY
@given(st.data())
def test_flipped_bits(name: str, data: st.DataObject) -> None:
    """A text may be another without a checksum, but no row is dropped or invented."""
    whole = bytearray(sound(name))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    rows = rows_of(name, bytes(whole))
    assert rows is None or len(rows) == ROWS or name == "a.csv"


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, int]:
    """A table of odd columns, of which names may be doubled, and its number of rows."""
    num_rows = draw(st.integers(0, 5))
    names = draw(st.lists(st.sampled_from(["text", "id", "url", "x", "", "a.b", "\ufefftext", "score"]), max_size=6))
    return pa.table([column(draw, num_rows) for _ in names], ["text", *names][-len(names) :] if names else []), num_rows


def column(draw: st.DrawFn, num_rows: int) -> pa.Array:
    kind = draw(st.sampled_from(TYPES))
    width = {32: pa.int32(), 64: pa.int64(), 16: pa.int16(), 8: pa.int8()}
    values = draw(st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), min_size=num_rows, max_size=num_rows))
    if pa.types.is_null(kind):
        array = pa.nulls(num_rows)
    elif pa.types.is_temporal(kind):
        array = pa.array(values, width[kind.bit_width]).view(kind)
    elif kind in (*SCALAR[:3], pa.binary()):
        array = pa.array([None if v is None else str(v) for v in values], pa.string()).cast(kind)
    elif pa.types.is_fixed_size_binary(kind):
        array = pa.array([None if v is None else b"abc" for v in values], kind)
    else:
        array = pa.array([None if v is None else v % 100 for v in values], pa.int64()).cast(kind)
    wrap = draw(st.sampled_from(["none", "none", "none", "dictionary", "list", "struct"]))
    if wrap == "dictionary" and not pa.types.is_null(kind):
        return array.dictionary_encode()
    if wrap == "list":
        return pa.ListArray.from_arrays(pa.array(range(num_rows + 1), pa.int32()), array)
    return pa.StructArray.from_arrays([array], ["text"]) if wrap == "struct" else array


@pytest.mark.parametrize("name", NAMES[:3])
@MANY
@given(tables())
def test_odd_schemas(name: str, made: tuple[pa.Table, int]) -> None:
    table, num_rows = made
    sink = pa.BufferOutputStream()
    try:
        if name == "a.parquet":
            pq.write_table(table, sink)
        else:
            with (pa.ipc.new_stream if "stream" in name else pa.ipc.new_file)(sink, table.schema) as writer:
                writer.write_table(table)
    except pa.ArrowException:  # the format has no such type
        return
    rows = rows_of(name, bytes(sink.getvalue()))
    assert rows is None or len(rows) == num_rows
    needed = [need.in_input for need in NEEDS]
    clean = [field.name.removeprefix("\ufeff") for field in table.schema]
    if rows is not None:
        assert "text" in clean
        assert all(clean.count(each) <= 1 for each in needed)
        kinds = [field.type for field, each in zip(table.schema, clean, strict=True) if each in needed]
        assert not any(pa.types.is_nested(kind) for kind in kinds)


def test_needs_of_numbers_accept_any_text() -> None:
    Path("a.csv").write_text("text,s\na,٣\nb,1e400\nc,0x1\nd,nan\ne,999999999999999999999\n")
    needs = (ColumnNeed("int_score", "s"), ColumnNeed("score", "s"))
    assert [row["int_score"] for row in read("a.csv", needs=needs)] == [3, None, None, None, None]
