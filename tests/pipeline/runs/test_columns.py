"""Columns of the input in templates: the same in every format, checked before a run, and redone where they change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.executors.inline import InlineExecutor
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.schema import InputSection
from tests.pipeline.inputs.reading import write
from tests.pipeline.project import (
    colophon,
    directories,
    execute,
    manifest,
    redone,
    resolved_recipe,
    run,
    snapshot,
    write_json_lines,
    write_tokenizer,
)

RECIPE = """
input.paths = ["data/*"]
output.path = "out"
[annotators.meta]
type = "columns"
[annotators.meta.columns]
language = { column = "meta.lang", rename = { en = "English" } }
date = { column = "meta.date", type = "timestamp" }
tags = { column = "meta.tags", separator = "+" }
[annotators.quality]
type = "columns"
columns.quality_score = { column = "score", type = "number" }
columns.bin = { column = "score", bins = { quantiles = 2 } }
[tokenizer]
path = "small.tiktoken"
pattern = "gpt2"
[pack]
sequence_length = 256
[layouts.dated]
position = "prepend"
template = "{language} {date:%Y} {tags} | "
max_metadata_tokens = 64
dropout = 0
[layouts.scored]
position = "append"
template = "{quality_score:.1f}, {bin:>3}"
dropout = 0
"""
METAS: list[dict[str, Any] | None] = [
    {"lang": "en", "date": "2013-05-18T05:48:54Z", "tags": ["a", "b"], "unused": 1},
    {"lang": "de", "date": "no date", "tags": [], "unused": 2},
    {"lang": None, "date": None, "tags": None, "unused": None},
    None,
]
ROWS = [
    {"id": str(n), "text": f"text {n}", "score": score, "meta": meta}
    for n, (score, meta) in enumerate(zip([0.25, 4.75, None, 2.0], METAS, strict=True))
]
EXPECTED = [
    {"language": "English", "date": 2013, "tags": "a+b"},
    {"language": "de", "date": None, "tags": None},
    {"language": None, "date": None, "tags": None},
    {"language": None, "date": None, "tags": None},
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    write(pa.Table.from_pylist(ROWS), "data/a.parquet")
    write(pa.Table.from_pylist(ROWS), "data/b.arrow")
    write(pa.Table.from_pylist(ROWS), "data/stream.arrow")
    write_json_lines(Path("data/c.jsonl"), ROWS)
    Path("data/d.csv").write_text(
        "id,text,score,meta.lang,meta.date,meta.tags\n0,text 0,0.25,en,2013-05-18T05:48:54Z,a+b\n"
        "1,text 1,4.75,de,no date,\n2,text 2,,,,\n3,text 3,2,,,\n"
    )
    write_tokenizer(Path("small.tiktoken"))
    Path("recipe.toml").write_text(RECIPE)


def annotations(name: str) -> list[list[dict[str, Any]]]:
    """The rows of each file, without ids."""
    paths = sorted(Path("out/annotations", name).glob("*.parquet"))
    return [pq.read_table(path).drop_columns(["id"]).to_pylist() for path in paths]


@pytest.mark.usefixtures("here")
def test_columns_in_templates_are_the_same_in_every_format_and_redone_where_they_change() -> None:
    assert execute().exit_code == 0
    found = annotations("meta")
    assert len(found) == 5
    for rows in found:
        assert [{**row, "date": row["date"] and row["date"].year} for row in rows] == EXPECTED
    assert [[row["bin"] for row in rows] for rows in annotations("quality")] == [[0, 1, None, 1]] * 5
    texts = {name: packed_metadata(name) for name in ("dated", "scored")}
    assert texts["dated"] == ["English 2013 a+b | ", "de   | ", "", ""] * 5
    assert texts["scored"] == ["0.2,   0", "4.8,   1", "", "2.0,   1"] * 5

    before = snapshot(Path("out"))
    assert execute("layouts.dated.template={date:%B}", rebuild=True).exit_code == 0
    assert directories(redone(before, after := snapshot(Path("out")))) == {"packed/dated"}
    assert packed_metadata("dated")[:2] == ["May", ""]
    changed = ("layouts.dated.template={date:%B}", "annotators.quality.columns.quality_score.column=id")
    overrides = [part for override in changed for part in ("--set", override)]
    assert run(*overrides, "--rebuild").code == 0
    assert directories(redone(after, snapshot(Path("out")))) == {"annotations/quality", "packed/scored"}
    assert packed_metadata("scored")[:2] == ["0.0,   0", "1.0,   1"]
    assert colophon("verify", "recipe.toml", "--inputs", *overrides).code == 0
    exported = colophon("export", "recipe.toml", "--to", "exported", "--executor", "inline", *overrides)
    assert exported.code == 0, exported.err
    names = pq.read_schema(min(Path("exported").rglob("*.parquet"))).names
    assert sorted(names) == sorted(
        ["id", "text", "score", "meta", "meta.lang", "meta.date", "meta.tags", "language", "date", "tags",
         "quality_score", "bin"]
    )  # fmt: skip
    counts = [record.counts for record in manifest().outputs["annotations/meta"].records]
    assert {(c["language_null"], c["date_null"], c["tags_null"]) for c in counts} == {(2, 3, 3)}


def packed_metadata(layout: str) -> list[str]:
    """The metadata of each document, decoded, in the order of the partitions' files."""
    tokenizer = resolved_recipe().tokenizer
    texts = []
    for path in sorted(Path("out/packed", layout).glob("*.arrow")):
        ids: dict[int, list[int]] = {}
        for row in pa.ipc.open_file(path).read_all().to_pylist():
            start = 0
            for length, role, document in zip(row["run_lengths"], row["run_roles"], row["run_documents"], strict=True):
                if role == 4:
                    ids.setdefault(document, []).extend(row["input_ids"][start : start + length])
                start += length
        texts += [tokenizer.decode(ids.get(document, [])) for document in range(len(ROWS))]
    return texts


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("layouts.dated.template={language:.1f}",
         "layouts.dated.template: {language:.1f}: language is string; it takes a format of text, such as >8 or .40. "
         "Set annotators.meta.columns.language.type"),
        ("layouts.dated.template={date:.1f}",
         "layouts.dated.template: {date:.1f}: date is timestamp[us, tz=UTC]; it takes a format of times, such as "),
        ("layouts.dated.template={lang}",
         "layouts.dated.template: no annotator writes 'lang'; available: bin, date, language, quality_score, tags"),
        ("layouts.dated.template={tags:1000000000}",
         "layouts.dated.template: template '{tags:1000000000}': format '1000000000' of tags: width and precision are "),
        ("layouts.dated.template={tags.x}", "layouts.dated.template: template '{tags.x}': a field is a column name "),
        ('annotators.meta.columns=["meta.lang"]',
         "annotators.meta: columns: 'meta.lang' cannot be in a template; write columns = { lang = \"meta.lang\" }"),
        ("annotators.meta.columns.tags.type=date", "annotators.meta: columns.tags: separator needs type string, not "),
        ("annotators.meta.columns.tags.typ=date", "annotators.meta.columns.tags.typ: unknown key"),
        ("annotators.meta.columns.language.column=meta.lnag",
         "annotators.meta.columns.language: no file has 'meta.lnag'; columns of the first: id, text, score, meta, "),
        ("input.columns.url=link", "input.columns.url: no file has 'link'; columns of the first: id, text, score, "),
        ("input.columns.other=link", "input.columns.other: unknown column; available: text, id, dump, url, "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_and_nothing_is_written(override: str, line: str) -> None:
    for path in Path("data").iterdir():
        if path.suffix != ".jsonl":
            path.unlink()
    before = snapshot()
    called = run("--set", override)
    assert called.code == 2
    assert called.line.startswith(f"recipe.toml: {line}")
    assert snapshot() == before


@pytest.mark.usefixtures("here")
def test_a_dry_run_shows_the_columns_that_were_found() -> None:
    called = run("--dry-run")
    assert called.code == 0
    assert "columns in the first 4 documents of data/a.parquet" in called.out
    rows = {cells[0]: cells for line in called.out.splitlines() if (cells := re.split(r"\s{2,}", line))}
    assert rows["meta.lang"] == ["meta.lang", "string", "50.0%", "meta.lang as text"]
    assert rows["meta.tags"][2:] == ["50.0%", "meta.tags as list"]
    assert rows["meta.unused"] == ["meta.unused", "int64", "50.0%"]
    assert rows["score"] == ["score", "double", "25.0%", "score as number"]
    assert not Path("out").exists()


def test_columns_of_warc_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.toml").write_text(
        'input.paths = ["a.wet"]\noutput.path = "out"\n[annotators.meta]\ntype = "columns"\n'
        'columns = { date = {}, link = "url", record = "id" }\n'
    )
    content = b"some text"
    head = (
        "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: https://e.org/\r\nWARC-Date: 2014-08-02T09:52:13Z\r\n"
        f"WARC-Record-ID: <urn:uuid:1>\r\nContent-Type: text/plain\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    Path("a.wet").write_bytes(head.encode() + content + b"\r\n\r\n")
    assert execute(executor=InlineExecutor(), stages=("annotate",)).exit_code == 0
    ((row,),) = annotations("meta")
    assert (row["date"].isoformat(), row["link"], row["record"]) == (
        "2014-08-02T09:52:13+00:00", "https://e.org/", "<urn:uuid:1>",
    )  # fmt: skip
    called = colophon("annotate", "recipe.toml", "--set", "annotators.meta.columns.link=dump")
    assert called.code == 2
    assert "annotators.meta.columns.link: no file has 'dump'; columns of the first: text, id, url, date" in called.line


@pytest.mark.usefixtures("here")
def test_mapped_names_hold_for_the_columns_annotator() -> None:
    """`[input.columns]` gives FineWeb's `language` its name in the input."""
    Path("recipe.toml").write_text(
        'input.paths = ["data/a.parquet"]\ninput.columns = { language = "meta.lang" }\noutput.path = "out"\n'
        '[annotators.meta]\ntype = "columns"\ncolumns = ["language"]\n'
    )
    assert execute(stages=("annotate",)).exit_code == 0
    assert annotations("meta") == [[{"language": "en"}, {"language": "de"}, {"language": None}, {"language": None}]]
    needs = resolved_recipe().columns.annotate_needs
    (partition,) = plan_inputs(InputSection(paths=["data/a.parquet"]), needs=needs).partitions
    assert [batch.schema.names for batch in PartitionReader(partition, needs, stage="test")] == [["language as text"]]
