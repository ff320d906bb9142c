"""The columns of a file: needed ones are checked when the run is planned, others do no harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from colophon.pipeline.inputs.columns import ColumnNeed
from tests.pipeline.inputs.reading import FORMATS, planned, read, refusal, write
from tests.pipeline.project import generated_id

GOOD = pa.table({"text": ["a", "b"], "id": ["1", "2"], "url": ["https://e.org/1", None]})

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


UNUSUAL = {
    "year 12000": pa.array([10**6 * 316516204800] * 2, pa.timestamp("us")),
    "date": pa.array([99999999, -99999999], pa.date32()),
    "nanoseconds": pa.array([1700000000123456789] * 2, pa.timestamp("ns")),
    "zone": pa.array([0, 0], pa.timestamp("us", tz="Mars/Olympus")),
    "time": pa.array([0, 86_399_999_999_999], pa.time64("ns")),
    "decimal": pa.array([1, None], pa.decimal256(76, 3)),
    "half": pa.array([np.float16(1), None], pa.float16()),
    "uuid": pa.array([b"0123456789abcdef", None], pa.uuid()),
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", "[1"])),
    "bytes": pa.array([b"\xff", None]),
    "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
    "nested": pa.array([{"text": [{"text": 1}]}, None]),
    "null": pa.nulls(2),
    "not UTF-8": pa.array([b"\xff", b"\xfe"]).view(pa.string()),
}


@pytest.mark.parametrize("path", FORMATS)
def test_columns_that_nobody_needs_do_no_harm(path: str) -> None:
    columns = [*GOOD.columns, *UNUSUAL.values(), *UNUSUAL.values()]
    write(pa.table(columns, [*GOOD.schema.names, *UNUSUAL, *UNUSUAL]), path)
    assert read(path) == GOOD.to_pylist()


@pytest.mark.parametrize("path", [path for path in FORMATS if path.endswith(".arrow")])
def test_a_damaged_column_that_nobody_needs_does_no_harm(path: str) -> None:
    """Types that Parquet cannot hold, and strings whose offsets lead outside their data."""
    offsets = pa.py_buffer(np.array([0, 2**30, 1], np.int32).tobytes())
    damaged = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a")])
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2]), pa.array(["r"]))
    months = pa.array([(1, 2, 3), None], pa.month_day_nano_interval())
    write(pa.table([*GOOD.columns, damaged, runs, months], [*GOOD.schema.names, "x", "y", "z"]), path)
    assert read(path) == GOOD.to_pylist()


@pytest.mark.parametrize("path", FORMATS)
@pytest.mark.parametrize("name", ["text", "id", "url"])
def test_two_columns_of_a_needed_name(path: str, name: str) -> None:
    for other in (name, f"\ufeff{name}"):
        write(pa.table([*GOOD.columns, GOOD[name]], [*GOOD.schema.names, other]), path)
        assert refusal(path) == f"two columns '{name}'"


def test_a_byte_order_mark_before_the_first_name_is_passed_over() -> None:
    for path in FORMATS:
        write(GOOD.rename_columns(["\ufefftext", "id", "url"]), path)
        assert read(path) == GOOD.to_pylist()


@pytest.mark.parametrize("path", FORMATS)
def test_a_missing_column_is_found_when_the_run_is_planned(path: str) -> None:
    write(GOOD.drop_columns(["url"]), path)
    needs = (ColumnNeed("text", "text"), ColumnNeed("url", "link"))
    assert refusal(path, needs=needs) == "no column 'link'; columns: text, id"


def test_a_file_with_thousands_of_columns_has_a_short_reason() -> None:
    write(pa.table({f"c{number}": [1] for number in range(3000)}), "a.parquet")
    assert refusal("a.parquet").endswith("c18, c19 and 2980 more")


CONVERTIBLE: dict[str, tuple[Callable[[], pa.Array], list[str | None]]] = {
    "dictionary": (lambda: pa.array(["x", None]).dictionary_encode(), ["x", None]),
    "dictionary of integers": (lambda: pa.array([7, 8]).dictionary_encode(), ["7", "8"]),
    "large": (lambda: pa.array(["x", "\0"], pa.large_string()), ["x", "\0"]),
    "view": (lambda: pa.array(["x" * 20, None], pa.string_view()), ["x" * 20, None]),
    "uint64": (lambda: pa.array([2**64 - 1, 0], pa.uint64()), ["18446744073709551615", "0"]),
    "int64": (lambda: pa.array([-(2**63), None], pa.int64()), ["-9223372036854775808", None]),
    "decimal": (lambda: pa.array([10**37, None], pa.decimal128(38, 0)), [str(10**37), None]),
    "float": (lambda: pa.array([1.0, 0.1]), ["1", "0.1"]),
    "bool": (lambda: pa.array([True, False]), ["true", "false"]),
    "timestamp": (
        lambda: pa.array([1_700_000_000_120_000, None], pa.timestamp("us")),
        ["2023-11-14T22:13:20.12", None],
    ),
    "zone": (lambda: pa.array([0, None], pa.timestamp("ms", tz="Mars/Olympus")), ["1970-01-01T00:00:00Z", None]),
    "nanoseconds": (
        lambda: pa.array([1, None], pa.timestamp("ns", tz="UTC")),
        ["1970-01-01T00:00:00.000000001Z", None],
    ),
    "far future": (lambda: pa.array([316516204800, None], pa.timestamp("s")), ["12000-01-01T00:00:00", None]),
    "date": (lambda: pa.array([19783, 99999999], pa.date32()), ["2024-03-01", "275760-09-12"]),
    "uuid": (lambda: pa.array([bytes(range(16)), None], pa.uuid()), ["00010203-0405-0607-0809-0a0b0c0d0e0f", None]),
    "null": (lambda: pa.nulls(2), [None, None]),
}


@pytest.mark.parametrize("path", FORMATS)
def test_types_that_can_be_given_as_strings(path: str) -> None:
    """One file with a column of each type; all are read under FineWeb's name of a string column."""
    arrays = {name: make() for name, (make, _) in CONVERTIBLE.items()}
    write(pa.table({"text": ["a", "b"], **arrays}), path)
    for name, (_, expected) in CONVERTIBLE.items():
        needs = (ColumnNeed("text", "text"), ColumnNeed("date", name))
        assert [row["date"] for row in read(path, needs=needs)] == expected, name
        ids = [row["id"] for row in read(path, needs=(ColumnNeed("id", name),))]
        assert ids == [value or generated_id(path, row) for row, value in enumerate(expected)]


NUMBERS: dict[str, tuple[Callable[[], pa.Array], list[float | None], list[int | None]]] = {
    "int8": (lambda: pa.array([-1, None], pa.int8()), [-1.0, None], [-1, None]),
    "uint64": (lambda: pa.array([2**64 - 1, 3], pa.uint64()), [2.0**64, 3.0], [None, 3]),
    "double": (lambda: pa.array([3.5, 4.0]), [3.5, 4.0], [None, 4]),
    "decimal": (lambda: pa.array([1, None], pa.decimal128(9, 2)), [1.0, None], [1, None]),
    "strings": (lambda: pa.array(["4.5", "x"]), [4.5, None], [None, None]),
    "digits": (lambda: pa.array(["12", ""]).dictionary_encode(), [12.0, None], [12, None]),
    "bool": (lambda: pa.array([True, None]), [1.0, None], [1, None]),
}


@pytest.mark.parametrize("path", FORMATS)
def test_types_that_can_be_given_as_numbers(path: str) -> None:
    arrays = {name: make() for name, (make, _, _) in NUMBERS.items()}
    write(pa.table({"text": ["a", "b"], **arrays}), path)
    for name, (_, floats, integers) in NUMBERS.items():
        rows = read(path, needs=(ColumnNeed("score", name), ColumnNeed("int_score", name)))
        assert rows == [{"score": f, "int_score": i} for f, i in zip(floats, integers, strict=True)], name


IMPOSSIBLE = {
    "list<": pa.array([[1], None]),
    "struct<": pa.array([{"a": 1}, None]),
    "map<": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
    "binary": pa.array([b"a", b"\xff"]),
    "fixed_size_binary[2]": pa.array([b"ab", None], pa.binary(2)),
    "time64[us]": pa.array([1, None], pa.time64("us")),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
@pytest.mark.parametrize("name", ["text", "id", "url", "score"])
def test_types_that_cannot_be_given_are_found_when_the_run_is_planned(kind: str, name: str) -> None:
    needs = (ColumnNeed("text", "text"), ColumnNeed(name, name, required=False))
    arrays = {"text": pa.array(["a", "b"]), name: IMPOSSIBLE[kind]}
    wanted = "double" if name == "score" else "string"
    for path in FORMATS:
        write(pa.table(arrays), path)
        found = refusal(path, needs=needs)
        assert found.startswith(f"column '{name}' is {kind}")
        assert f", not {wanted}" in found


@pytest.mark.parametrize("kind", [pa.int64(), pa.null(), pa.timestamp("s")], ids=str)
def test_a_text_must_be_a_string(kind: pa.DataType) -> None:
    write(pa.table({"text": pa.array([None, None], kind)}), "a.arrow")
    assert refusal("a.arrow") == f"column 'text' is {kind}, not string"


def test_a_needed_column_beside_a_nested_column_of_the_same_path() -> None:
    nested = pa.array([{"b": 1}, {"b": 2}])
    write(pa.table([nested, pa.array(["x", "y"])], ["a", "a.b"]), "a.parquet")
    assert read("a.parquet", needs=(ColumnNeed("text", "a.b"),)) == [{"text": "x"}, {"text": "y"}]


def test_one_column_under_two_names() -> None:
    for path in FORMATS:
        write(GOOD, path)
        rows = read(path, needs=(ColumnNeed("url", "id"), ColumnNeed("id", "id")))
        assert rows == [{"url": "1", "id": "1"}, {"url": "2", "id": "2"}]


def test_rows_are_counted_without_any_column() -> None:
    for path in FORMATS:
        write(GOOD, path)
        assert read(path, needs=(ColumnNeed("score", "score", required=False),)) == [{"score": None}] * 2
    assert len(planned("a.parquet").partitions) == 1


def test_a_dictionary_of_long_values_is_decoded_in_small_batches() -> None:
    """A thousand rows of 1 MB in a file of 1 MB: what is decoded at once stays below 16 MB."""
    table = pa.table({"text": pa.array(["x" * 1_000_000] * 1000).dictionary_encode()})
    write(table, "a.arrow")
    before = pa.total_allocated_bytes()
    partition = planned("a.arrow").partitions[0]
    from colophon.pipeline.inputs.readers import PartitionReader

    rows = 0
    for batch in PartitionReader(partition, (ColumnNeed("text", "text"),), stage="test"):
        rows += batch.num_rows
        assert pa.total_allocated_bytes() - before < 16 << 20
    assert rows == 1000
