"""Several sources of documents, `[[inputs]]`: each has its own columns and name, and none redoes another's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.inputs.columns import SOURCE_NAME, ColumnNeed
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.recipe.schema import SourceSection
from colophon.pipeline.runs.staleness import check_unchanged
from colophon.shards.common.errors import ColophonError
from tests.pipeline.inputs.reading import write
from tests.pipeline.project import (
    colophon,
    directories,
    execute,
    manifest,
    quarantine,
    redone,
    resolved_recipe,
    run,
    snapshot,
    write_json_lines,
    write_tokenizer,
)

WEB = '[[inputs]]\nname = "web"\npaths = "web"\n'
BOOKS = """[[inputs]]
name = "Old books"
paths = ["books/*"]
format = "jsonl"
columns = { text = "body", id = "key", language = "meta.lang" }
"""
WIKI = '[[inputs]]\nname = "wiki"\npaths = "wiki"\ncolumns = { text = "content" }\nmax_document_bytes = 20\n'
REST = """
[output]
path = "out"
[annotators.origin]
type = "columns"
columns = { origin = "source_name" }
[annotators.meta]
type = "columns"
columns = { language = {} }
[tokenizer]
path = "small.tiktoken"
pattern = "gpt2"
[pack]
sequence_length = 256
[layouts.plain]
position = "plain"
[layouts.named]
position = "prepend"
template = "{origin} {language}: "
dropout = 0
[train.tiny]
layout = "named"
model = "1m"
steps = 1
batch_size = 1
"""
NAMES = ["web", "Old books", "wiki"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for directory in ("web", "books", "wiki"):
        Path(directory).mkdir()
    rows = [{"id": f"w{n}", "text": f"web {n}", "language": "en", "score": n, "body": "not a text"} for n in range(3)]
    write(pa.Table.from_pylist(rows), "web/a.parquet")
    write_json_lines(
        Path("books/part.txt"), [{"key": n, "body": f"book {n}", "meta": {"lang": "de"}, "score": n} for n in range(4)]
    )
    Path("wiki/a.csv").write_text(
        f"id,content,language,score,{SOURCE_NAME}\na,wiki,fr,1,own\nb,{'long ' * 9},fr,2,own\n"
    )
    write_tokenizer(Path("small.tiktoken"))
    write_recipe(WEB, BOOKS, WIKI)


def write_recipe(*sources: str, rest: str = REST) -> None:
    Path("recipe.toml").write_text("".join(sources) + rest)


def annotations(name: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of each source's file."""
    found = manifest()
    source_of = {partition.name: partition.source_name for partition in found.partitions}
    records = found.annotators[name].records
    return {str(source_of[r.partition]): pq.read_table(Path("out", r.path)).to_pylist() for r in records}


@pytest.mark.usefixtures("here")
def test_documents_have_the_name_and_the_columns_of_their_source() -> None:
    half = 'language = {}, half = { column = "score", bins = { quantiles = 2 } }'
    write_recipe(WEB, BOOKS, WIKI, rest=REST.replace("language = {}", half))
    assert run().code == 3  # a document of wiki is too large
    origins, metas = annotations("origin"), annotations("meta")
    assert list(origins) == NAMES
    assert [len(rows) for rows in origins.values()] == [3, 4, 1]
    assert all(row["origin"] == name for name, rows in origins.items() for row in rows)
    assert [{row["language"] for row in rows} for rows in metas.values()] == [{"en"}, {"de"}, {"fr"}]
    assert [row["half"] for row in metas["Old books"]] == [0, 1, 1, 1]  # the median of all sources is 1
    summary = json.loads(Path("out/report/summary.json").read_text())
    assert {name: (c["files"], c["documents"], c["text_bytes"]) for name, c in summary["sources"].items()} == {
        "web": (1, 3, 15),
        "Old books": (1, 4, 24),
        "wiki": (1, 1, 4),
    }
    shown = [colophon("inspect", "recipe.toml", "--sequence", str(n), "--layout", "named").out for n in range(3)]
    for title in ("web en: ", "Old books de: ", "wiki fr: "):
        assert title in "".join(shown)
    for options in ((), ("--inputs",), ("--deep", "--executor", "inline")):
        assert colophon("verify", "recipe.toml", *options).code == 0
    before = snapshot(Path("out"))
    again = run()
    assert "nothing to do" in again.out
    assert redone(before, snapshot(Path("out"))) == set()
    check_unchanged(load_recipe("recipe.toml"), "tiny", where="recipe.toml")

    exported = colophon("export", "recipe.toml", "--to", "exported", "--executor", "inline")
    assert exported.code == 0
    rows = [row for path in sorted(Path("exported").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    found = {row["id"]: row for row in rows}
    assert {row["origin"] for row in rows} == set(NAMES)
    assert {found[key]["text"] for key in ("w0", "0", "a")} == {"web 0", "book 0", "wiki"}
    assert (found["w0"]["body"], found["0"]["body"]) == ("not a text", None)  # the text of books is no second column
    assert (found["a"][SOURCE_NAME], found["0"]["language_annotated"]) == ("own", "de")


@pytest.mark.usefixtures("here")
def test_a_source_redoes_nothing_of_the_others() -> None:
    write_recipe(WEB, BOOKS)
    assert run().code == 0

    def changed(*sources: str, rebuild: bool = False) -> set[str]:
        """The output files that a run writes."""
        write_recipe(*sources)
        if not rebuild:
            check_unchanged(load_recipe("recipe.toml"), "tiny", where="recipe.toml")
        before = snapshot(Path("out"))
        assert run(*(["--rebuild"] if rebuild else [])).code in (0, 3)
        assert colophon("verify", "recipe.toml").code == 0
        return redone(before, snapshot(Path("out")))

    outputs = {"annotations/origin", "annotations/meta", "tokens", "packed/plain", "packed/named"}
    of_wiki = changed(WEB, BOOKS, WIKI)
    assert directories(of_wiki) == outputs
    assert len(of_wiki) == len(outputs)
    assert changed(WIKI, WEB, BOOKS) == set()
    renamed = changed(WIKI, WEB.replace('"web"\n', '"the web"\n', 1), BOOKS)
    assert directories(renamed) == {"annotations/origin", "packed/named"}
    assert len(renamed) == 2
    assert changed(BOOKS) == set()

    other = BOOKS.replace("id =", "dump =")
    write_recipe(other)
    refused = run()
    assert refused.code == 2
    changed_id = "sources.Old books.columns.id: 'key' -> None"
    assert f"annotations/origin was written with other settings: {changed_id}" in refused.line
    with pytest.raises(ColophonError, match=r"sources.Old books.columns.id: 'key' -> 'id'"):
        check_unchanged(load_recipe("recipe.toml"), "tiny", where="recipe.toml")
    # The source that is added again has its files still.
    assert directories(changed(other, WIKI, rebuild=True)) == outputs

    short = other.replace("[[inputs]]", "[input]")
    assert changed(short) == set()


@pytest.mark.usefixtures("here")
def test_the_columns_of_each_source_are_shown() -> None:
    shown = json.loads(colophon("run", "recipe.toml", "--dry-run", "--json").out)
    read_as = {(c["source_name"], c["name"]): c["read_as"] for c in shown["columns"]}
    assert read_as["web", "body"] == []
    assert read_as["Old books", "body"] == ["text"]
    assert read_as["Old books", "meta.lang"] == ["language as text"]
    assert read_as["wiki", SOURCE_NAME] == []
    assert shown["no_estimate"] is None
    table = colophon("run", "recipe.toml", "--dry-run", "--no-probe").out
    assert "columns in the first 4 documents of books/part.txt (Old books)" in table


@pytest.mark.usefixtures("here")
def test_the_name_is_read_alone_from_every_format() -> None:
    table = pa.table({"text": ["a", "b"]})
    Path("all").mkdir()
    write(table, "all/a.parquet")
    write(table, "all/b.arrow")
    write_json_lines(Path("all/c.jsonl"), table.to_pylist())
    Path("all/d.csv").write_text("text\na\nb\n")
    needs = [ColumnNeed(SOURCE_NAME, SOURCE_NAME)]
    for partition in plan_inputs(SourceSection(name="x y", paths=["all"]), needs=needs).partitions:
        (batch,) = PartitionReader(partition, needs, stage="annotate")
        assert batch.to_pydict() == {SOURCE_NAME: ["x y", "x y"]}


PROBLEMS = {
    "one file, two sources": (
        (WEB, BOOKS, WIKI + '[[inputs]]\nname = "more"\npaths = "./books/*.txt"\nformat = "jsonl"\n'),
        "inputs.Old books.paths and inputs.more.paths both lead to books/part.txt; a file has one source",
    ),
    "one name": ((WEB, WEB), "inputs: two sources have the name 'web'"),
    "no name": (('[[inputs]]\npaths = "web"\n',), "inputs.0.name: is required"),
    "a name of two lines": ((WEB.replace('"web"', '"a\\nb"', 1),), "inputs.0.name: must be printable characters"),
    "both": ((WEB, '[input]\npaths = "wiki"\n'), "input: [input] is the short form of one [[inputs]]"),
    "both, without paths": (
        (WEB, "[input]\npartition_bytes = 1000\n"),
        "input: [input] is the short form of one [[inputs]]: a recipe has one of them. Each table of [[inputs]] has",
    ),
    "neither": ((), "input: is required"),
    "no sources": (("inputs = []\n",), "inputs: must have at least 1 item"),
    "too many": (tuple(WEB.replace("web", f"web{n}") for n in range(1001)), "inputs: must have at most 1,000 items"),
    "a key": (
        (WEB + "path = 1\n",),
        "inputs.0.path: unknown key; available: columns, format, max_document_bytes, name, ",
    ),
    "no files": ((WEB, BOOKS.replace("books/*", "none/*")), "inputs.Old books.paths: none/*: no such file"),
    "a column of none": (
        (WEB, BOOKS.replace('"meta.lang"', '"meta.lan"')),
        "inputs.Old books.columns.language: no file of inputs.Old books has 'meta.lan'; columns of the first: key, ",
    ),
    "an unknown column": (
        (WEB + "columns.txt = 'body'\n",),
        "inputs.web.columns.txt: unknown column; available: text, ",
    ),
    "a source without its columns": (
        (BOOKS, WIKI.replace('text = "content"', "")),
        "inputs.wiki: no input file can be read; the first, wiki/a.csv: no column 'text'; columns: id, content, ",
    ),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_wrong_source_is_one_line_and_nothing_is_written(problem: str) -> None:
    sources, line = PROBLEMS[problem]
    write_recipe(*sources)
    before = snapshot()
    called = run()
    assert called.code == 2
    assert called.line.startswith(f"recipe.toml: {line}")
    assert snapshot() == before


@pytest.mark.usefixtures("here")
def test_one_source_can_have_a_name() -> None:
    write_recipe('[input]\nname = "one"\npaths = "web"\n')
    assert resolved_recipe().inputs.partitions[0].source_name == "one"
    assert execute("annotators.meta={type='columns',columns=['language']}").exit_code == 0
    assert set(annotations("origin")) == {"one"}


DATED = REST.replace("columns = { language = {} }", "columns = { language = {}, date = {} }")
SHOP = '[[inputs]]\nname = "shop"\npaths = "shop"\n'


def write_shop(suffix: str) -> None:
    """A source without a date, in two files."""
    Path("shop").mkdir()
    rows = [{"id": f"s{n}", "text": f"shop {n}", "language": "en"} for n in range(2)]
    for file in range(2):
        if suffix == ".jsonl":
            write_json_lines(Path(f"shop/{file}.jsonl"), rows)
        else:
            write(pa.Table.from_pylist(rows), f"shop/{file}{suffix}")


def write_dated_web() -> None:
    rows = [{"id": f"w{n}", "text": f"web {n}", "language": "en", "date": "2024-05-06"} for n in range(3)]
    write(pa.Table.from_pylist(rows), "web/a.parquet")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl"])
def test_a_column_that_a_source_does_not_have_is_null_and_named(suffix: str) -> None:
    write_dated_web()
    write_shop(suffix)
    write_recipe(WEB, SHOP, rest=DATED)
    note = {
        ".jsonl": "source shop: no 'date' in its first lines: null in all documents without it",
    }.get(suffix, "source shop: no column 'date': null for all its documents")
    planned = colophon("run", "recipe.toml", "--dry-run", "--no-probe")
    assert note in planned.out.splitlines()
    assert json.loads(colophon("run", "recipe.toml", "--dry-run", "--no-probe", "--json").out)["notes"] == [note]
    called = run()
    assert called.code == 0
    assert note in called.out.splitlines()
    assert "source shop: every value is null: date" in called.out.splitlines()
    metas = annotations("meta")
    assert [row["date"] for row in metas["shop"]] == [None] * 2  # of the second file; the first has as many
    assert all(row["date"] is not None for row in metas["web"])
    assert json.loads(Path("out/report/summary.json").read_text())["null_in_sources"] == {"shop": ["date"]}
    for options in ((), ("--inputs",), ("--deep", "--executor", "inline")):
        assert colophon("verify", "recipe.toml", *options).code == 0
    again = run()
    assert "source shop: every value is null: date" in again.out.splitlines()
    assert "nothing to do" in again.out


@pytest.mark.usefixtures("here")
def test_a_file_without_a_column_that_its_source_has_is_quarantined() -> None:
    write_dated_web()
    write_shop(".parquet")
    rows = [{"id": "d", "text": "dated", "language": "en", "date": "2024-05-06"}]
    write(pa.Table.from_pylist(rows), "shop/dated.parquet")
    write_recipe(WEB, SHOP, rest=DATED)
    called = run()
    assert called.code == 3
    reason = "no column 'date', which other files of the source have"
    assert [(entry.source, entry.reason) for entry in quarantine()] == [
        ("shop/0.parquet", reason),
        ("shop/1.parquet", reason),
    ]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_column_that_no_source_has_is_an_error(suffix: str) -> None:
    write_shop(suffix)
    write_recipe(WEB, SHOP, rest=DATED)
    before = snapshot()
    assert run().line == "recipe.toml: annotators.meta.columns.date: no file of any source has 'date'"
    write_recipe(WEB, SHOP + "columns = { date = 'published' }\n", rest=DATED)
    line = run().line
    assert line.startswith("recipe.toml: inputs.shop")
    assert "no column 'published'" in line or "no file of inputs.shop has 'published'" in line
    write_recipe(SHOP, rest=DATED)  # the only source
    assert "no column 'date'" in run().line or "no file of inputs.shop has 'date'" in run().line
    after = snapshot()
    assert {name: state for name, state in after.items() if name != "recipe.toml"} == {
        name: state for name, state in before.items() if name != "recipe.toml"
    }
