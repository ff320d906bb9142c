"""Columns in structs and JSON objects, one rule for all formats, and columns that an annotator reads in its type."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.columnar.conversion import converted
from colophon.pipeline.inputs.columns import ColumnNeed, column_names, paths_of, splits
from colophon.pipeline.inputs.found_columns import FoundColumn, found_columns
from colophon.pipeline.inputs.jsonl.sample import members
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.schema import InputSection
from tests.pipeline.inputs.reading import FORMATS, planned, read, refusal, write
from tests.pipeline.project import write_json_lines

TEXT = ColumnNeed("text", "text")
ALL = (*FORMATS, "a.jsonl")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def store(rows: list[dict[str, Any]], path: str) -> None:
    if path.endswith(".jsonl"):
        write_json_lines(Path(path), rows)
    else:
        write(pa.Table.from_pylist(rows), path)


def typed(column: str, kind: pa.DataType, *, key: str | None = None) -> ColumnNeed:
    """A column as the `columns` annotator reads it."""
    return ColumnNeed(f"{column} as {kind}", column, read_as=kind, nested_as_json=False, key=key)


ROWS = [
    {"text": "a", "meta": {"url": "u1", "in": {"lang": "en"}, "a.b": "x"}, "m.n": {"k": "q"}, "meta.flat": "f"},
    {"text": "b", "meta": {"url": None, "in": {"lang": "de"}, "a.b": None}, "m.n": {"k": None}, "meta.flat": None},
    {"text": "c", "meta": None, "m.n": None, "meta.flat": "g"},
]


@pytest.mark.parametrize("path", ALL)
def test_nested_columns_are_read_by_one_rule(path: str) -> None:
    """The whole name first, then the part before a dot: structs, fields and columns with dots are all found."""
    store(ROWS, path)
    names = ("meta.url", "meta.in.lang", "meta.a.b", "m.n.k", "meta.flat")
    needs = (TEXT, *(ColumnNeed(name, name, read_as=pa.string()) for name in names))
    expected = [("a", "u1", "en", "x", "q", "f"), ("b", None, "de", None, None, None), ("c", *[None] * 4, "g")]
    assert [tuple(row.values()) for row in read(path, needs=needs)] == expected


@pytest.mark.parametrize("path", ALL)
def test_a_column_of_the_whole_name_wins(path: str) -> None:
    store([{"text": "a", "a": {"b": {"c": "deep"}, "b.c": "middle"}, "a.b.c": "flat", "x": {"y": {"z": "in"}}}], path)
    needs = (TEXT, ColumnNeed("url", "a.b.c"), ColumnNeed("dump", "x.y.z"))
    assert read(path, needs=needs) == [{"text": "a", "url": "flat", "dump": "in"}]
    store([{"text": "a", "a": {"b": {"c": "deep"}, "b.c": "middle"}, "a.b": {"c": "high"}}], path)
    assert read(path, needs=(TEXT, ColumnNeed("url", "a.b.c"))) == [{"text": "a", "url": "high"}]
    store([{"text": "a", "a": {"b": {"c": "deep"}, "b.c": "middle"}}], path)
    assert read(path, needs=(TEXT, ColumnNeed("url", "a.b.c"))) == [{"text": "a", "url": "middle"}]


def test_the_text_and_the_id_may_be_nested() -> None:
    for path in ALL:
        store([{"doc": {"body": "a", "key": "7"}}], path)
        inputs = plan_inputs(
            InputSection(paths=[path], columns={"text": "doc.body", "id": "doc.key"}),
            needs=(needs := (ColumnNeed("text", "doc.body"), ColumnNeed("id", "doc.key", required=False))),
        )
        (batch,) = PartitionReader(inputs.partitions[0], needs, stage="test")
        assert batch.to_pylist() == [{"text": "a", "id": "7"}]


def test_names_are_cut_at_each_dot() -> None:
    assert list(splits("a.b.c")) == [("a.b", "c"), ("a", "b.c")]
    schema = pa.schema([("a", pa.struct([("b", pa.struct([("c", pa.int8())]))])), ("d", pa.list_(pa.int8()))])
    assert column_names(schema) == ["a", "a.b", "a.b.c", "d"]
    assert [paths_of(list(schema), name) for name in ("a.b.c", "d", "a.x", "a.", ".", "d.item", "")] == [
        [(0, 0, 0)], [(1,)], [], [], [], [], [],
    ]  # fmt: skip


def test_only_the_needed_fields_of_a_struct_are_decoded_from_parquet() -> None:
    """A page of the other field is damaged, which any read of it would find."""
    metas = [{"url": f"https://e.org/{n}", "html": f"{n:0>4}DAMAGE"} for n in range(50)]
    table = pa.table({"text": ["a"] * 50, "meta": metas})
    pq.write_table(table, "a.parquet", compression="none", use_dictionary=False, write_page_checksum=True)
    content = Path("a.parquet").read_bytes()
    Path("a.parquet").write_bytes(content.replace(b"0007DAMAGE", b"0007DaMAGE"))
    assert read("a.parquet", needs=(TEXT, ColumnNeed("url", "meta.url")))[7]["url"] == "https://e.org/7"
    with pytest.raises(Exception, match="CRC checksum"):
        read("a.parquet", needs=(TEXT, ColumnNeed("url", "meta.html")))


@pytest.mark.parametrize("path", FORMATS)
def test_problems_name_the_nested_columns_that_exist(path: str) -> None:
    store(ROWS, path)
    assert refusal(path, needs=(TEXT, ColumnNeed("url", "meta.uri"))) == (
        "no column 'meta.uri'; columns: meta.url, meta.in, meta.in.lang, meta.a.b, meta.flat"
    )
    assert refusal(path, needs=(TEXT, ColumnNeed("url", "meta.in"))) == (
        "column 'meta.in' is struct<lang: string>, not string; name a field of it, such as meta.in.lang"
    )
    twice = pa.StructArray.from_arrays([pa.array(["x"]), pa.array(["y"])], ["u", "u"])
    if path != "a.parquet":  # Arrow cannot write it
        write(pa.table({"text": ["a"], "meta": twice}), path)
        assert refusal(path, needs=(TEXT, ColumnNeed("url", "meta.u"))) == "two columns 'meta.u'"


def test_a_list_without_a_separator_is_refused_with_the_remedy() -> None:
    write(pa.table({"text": ["a"], "tags": [["x"]]}), "a.parquet")
    assert refusal("a.parquet", needs=(TEXT, typed("tags", pa.string(), key="annotators.m.columns.tags"))) == (
        "column 'tags' is list<element: string>, not string; annotators.m.columns.tags: "
        'set separator = ", " to join its values'
    )


VALUES: list[tuple[pa.DataType, list[Any], list[Any]]] = [
    (pa.string(), ["a", "", None], ["a", "", None]),
    (pa.string(), [1, 2**62, None], ["1", str(2**62), None]),
    (pa.string(), [True, False, None], ["true", "false", None]),
    (pa.string(), [1.5, 2.0, None], ["1.5", "2", None]),
    (pa.int64(), [1, None, -(2**63)], [1, None, -(2**63)]),
    (pa.int64(), ["12", "x", None], [12, None, None]),
    (pa.int64(), [1.0, 1.5, None], [1, None, None]),
    (pa.float64(), [1, 2.5, None], [1.0, 2.5, None]),
    (pa.float64(), ["0.5", "high", ""], [0.5, None, None]),
    (pa.bool_(), [True, False, None], [True, False, None]),
    (pa.bool_(), ["true", "FALSE", "yes"], [True, False, None]),
    (pa.bool_(), [1, 0, 2], [True, False, None]),
    (pa.list_(pa.string()), [["a", None, "b"], [], None], [["a", "b"], [], None]),
    (pa.list_(pa.string()), [[1, 2], [3], None], [["1", "2"], ["3"], None]),
    (pa.list_(pa.string()), ["a", None, ""], [["a"], None, [""]]),
    (pa.list_(pa.float32()), [[1, 2], [], None], [[1.0, 2.0], [], None]),
    (pa.list_(pa.float32()), [["0.5"], None, ["-2"]], [[0.5], None, [-2.0]]),
]


@pytest.mark.parametrize(("kind", "values", "expected"), VALUES)
def test_a_typed_column_has_the_same_values_in_every_format(
    kind: pa.DataType, values: list[Any], expected: list[Any]
) -> None:
    rows = [{"text": "t", "in": {"x": value}} for value in values]
    for path in ALL:
        if path == "a.jsonl":
            write_json_lines(Path(path), rows)
        else:
            write(pa.table({"text": ["t"] * 3, "in": pa.StructArray.from_arrays([pa.array(values)], ["x"])}), path)
        need = typed("in.x", kind)
        (partition,) = planned(path, needs=(TEXT, need)).partitions
        reader = PartitionReader(partition, (need,), stage="test")
        assert [row[need.name] for batch in reader for row in batch.to_pylist()] == expected, path
        lost = sum(v is not None and e is None for v, e in zip(values, expected, strict=True))
        assert sum(reader.wrong.values()) == (lost if path == "a.jsonl" else 0)


def test_lists_of_every_kind_are_read_alike() -> None:
    values = [["a", None], [], None, ["b", "c"]]
    text = pa.string()
    for kind in (pa.list_(text), pa.large_list(pa.large_string()), pa.list_view(text), pa.large_list_view(text)):
        array, _ = converted(pa.array(values, kind).slice(0, 4), pa.list_(text))
        assert array.to_pylist() == [["a"], [], None, ["b", "c"]]
        assert converted(pa.array(values, kind).slice(1), pa.list_(text))[0].to_pylist() == [[], None, ["b", "c"]]
    pairs = pa.array([[1, 2], None, [3, None]], pa.list_(pa.int64(), 2))
    assert converted(pairs.slice(1), pa.list_(text))[0].to_pylist() == [None, ["3"]]


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32(), 2), pa.list_(pa.float64()), pa.large_list(pa.int8()), pa.list_view(pa.int32())],
)
def test_vectors_of_every_kind_keep_the_place_of_each_number(kind: pa.DataType) -> None:
    values = pa.array([[1, 2], None, [None, 3], [4, 5]], kind)
    array, _ = converted(values.slice(1), pa.list_(pa.float32()))
    array.validate(full=True)
    assert str(array.to_pylist()) == "[None, [nan, 3.0], [4.0, 5.0]]"


def test_typed_columns_of_csv_are_those_of_its_strings() -> None:
    Path("a.csv").write_text("text,n,b,in.x\nt,12,true,p\nt,,FALSE,\n")
    kinds = {"n": pa.int64(), "b": pa.bool_(), "in.x": pa.list_(pa.string())}
    needs = tuple(typed(name, kind) for name, kind in kinds.items())
    assert [tuple(row.values()) for row in read("a.csv", needs=(TEXT, *needs))] == [
        ("t", 12, True, ["p"]),
        ("t", None, False, [""]),
    ]


def test_json_values_of_no_column_are_null_and_counted_also_in_lines_that_are_scanned() -> None:
    lines = [
        '{"text": "t", "m": {"x": {"y": 1}}}',
        '{"text": "t", "m": {"x": ["a", "\\ud800b"]}, "nan": NaN}',
        '{"text": "t", "m": {"x": "1"}, "m": {"x": "2"}}',
        '{"text": "t", "m": {"x": 12345678901234567890123, "a.b": 1}}',
    ]
    Path("a.jsonl").write_text("\n".join(lines))
    for kind, expected, wrong in (
        (pa.string(), [None, None, None, "12345678901234567890123"], 3),
        (pa.list_(pa.string()), [None, ["a", "\ufffd\ufffd\ufffdb"], [], ["1.2345678901234568e+22"]], 1),
        (pa.list_(pa.float32()), [None, [math.nan, math.nan], [], None], 2),
        (pa.int64(), [None] * 4, 4),
    ):
        need = typed("m.x", kind)
        (partition,) = planned("a.jsonl", needs=(TEXT, need)).partitions
        reader = PartitionReader(partition, (TEXT, need), stage="test")
        assert str([row[need.name] for batch in reader for row in batch.to_pylist()]) == str(expected)
        assert reader.wrong[need.name] == wrong


def test_one_key_twice_below_a_flat_key_of_the_path_is_found() -> None:
    Path("a.jsonl").write_text('{"text": "t", "a.b": "1", "a.b": "2"}\n')
    assert read("a.jsonl", needs=(TEXT, ColumnNeed("url", "a.b"))) == [{"text": "t", "url": None}]


@pytest.mark.parametrize("path", [*ALL, "a.csv"])
def test_a_column_that_no_row_has_is_an_error_with_the_key(path: str) -> None:
    need = typed("meta.uri", pa.string(), key="annotators.m.columns.uri")
    if path == "a.csv":
        Path(path).write_text("text,meta\na,b\n")
    else:
        store(ROWS, path)
    if path == "a.jsonl":
        expected = r"annotators\.m\.columns\.uri: no file has 'meta\.uri'; columns of the first: text, meta, "
    else:
        expected = r"no input file can be read; the first, .*: no column 'meta\.uri'; columns: "
    with pytest.raises(UsageError, match=expected):
        plan_inputs(InputSection(paths=[path]), needs=(TEXT, need))


def test_a_list_that_repeats_a_long_value_is_refused() -> None:
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array(["x" * (1 << 20)]))
    lists = pa.ListArray.from_arrays(pa.array([0, 400], pa.int32()), values)
    write(pa.table({"text": ["a"], "tags": lists}), "a.arrow")
    with pytest.raises(Exception, match="the values of a list have more than 268,435,456 bytes"):
        read("a.arrow", needs=(TEXT, typed("tags", pa.list_(pa.string()))))


@pytest.mark.parametrize("path", [*ALL, "a.csv"])
def test_the_columns_found_have_types_and_missing_values(path: str) -> None:
    rows = [
        {"text": "a", "n": 1, "meta": {"ok": True, "tags": ["x"]}},
        {"text": "", "n": None, "meta": None},
        {"text": "b", "n": 3, "meta": {"ok": None, "tags": []}},
    ]
    if path == "a.csv":
        Path(path).write_text("text,n\na,1\n,\nb,3\n")
    else:
        store(rows, path)
    (partition,) = planned(path, needs=(TEXT,)).partitions
    found = {column.name: column for column in found_columns(partition)}
    assert all(column.rows == 3 for column in found.values())
    types = {name: (column.type, column.missing) for name, column in found.items()}
    assert types["text"] == ("string", 1)
    if path == "a.csv":
        assert types["n"] == ("string", 1)
    elif path == "a.jsonl":
        assert types == {
            "text": ("string", 1), "n": ("integer", 1), "meta": ("null", 3),
            "meta.ok": ("boolean", 2), "meta.tags": ("list", 1),
        }  # fmt: skip
    else:
        assert {name: types[name][0].partition("<")[0] for name in types} == {
            "text": "string", "n": "int64", "meta.ok": "bool", "meta.tags": "list",
        }  # fmt: skip
        assert [types[name][1] for name in ("n", "meta.ok", "meta.tags")] == [1, 2, 1]


def test_the_members_of_a_row_are_in_its_order() -> None:
    row = {"a": {"b": 1, "c": {"d": None, "e": {}}}, "f": [{"g": 1}], "h": {"i": ""}, "j": 2}
    names = {"a.b": 1, "a.c.d": None, "a.c.e": {}, "f": [{"g": 1}], "h.i": "", "j": 2}
    assert list(members(row)) == list(names.items())
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"a": deep}
    assert next(members(deep)) == (".".join("a" * 5_000), {})


def test_found_columns_of_hostile_files() -> None:
    Path("a.jsonl").write_text('\n[1]\n{"text": "a", "' + "k.." * 5 + '": {}}\n' + '{"a":' * 3000 + "1" + "}" * 3000)
    (partition,) = plan_inputs(InputSection(paths=["a.jsonl"]), needs=(TEXT,)).partitions
    assert [column.name for column in found_columns(partition)] == ["text", "k.." * 5]
    assert found_columns(partition)[1] == FoundColumn("k.." * 5, "object", 1, 0)
    twice = pa.StructArray.from_arrays([pa.array(["x"]), pa.array(["y"]), pa.array([1])], ["u", "u", "v"])
    no_utf8 = pa.array([b"\xff"]).view(pa.string())
    broken = pa.DictionaryArray.from_arrays(pa.array([5]), pa.array(["a"]), safe=False)
    write(pa.table([["a"], [1], [2], twice, no_utf8, broken], ["text", "x", "x", "m", "latin", "bad"]), "a.arrow")
    (partition,) = planned("a.arrow", needs=(TEXT,)).partitions
    assert [(column.name, column.type) for column in found_columns(partition)] == [
        ("text", "string"), ("x", "int64"), ("m.v", "int64"), ("latin", "string"), ("bad", "cannot be read"),
    ]  # fmt: skip
