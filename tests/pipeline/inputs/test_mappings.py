"""Planning over files without documents, and over `[input.columns]` that no file has."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.jsonl import sample
from colophon.pipeline.inputs.partitions import Inputs, plan_inputs
from colophon.pipeline.recipe.schema import InputSection
from tests.pipeline.inputs.reading import refusal
from tests.pipeline.project import run, snapshot, write_json_lines

NONE = "none of the first"
ROWS = [{"text": f"text {n}", "link": "u", "metadata": {"url": "v"}} for n in range(50)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(*paths: str, **columns: str) -> Inputs:
    needs = [ColumnNeed("text", columns.get("text", "text")), ColumnNeed("id", columns.get("id", "id"), required=False)]
    return plan_inputs(InputSection(paths=list(paths), columns=columns), needs=needs)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"txt": "a", "url": "u"}\n' * 3, f"{NONE} 3 lines is a document; line 1: no key 'text'; keys: txt, url"),
        ('\n\n{"text": 7}\n', "line 3: 'text' is int, not a string; the file has no other"),
        (json.dumps(ROWS, indent=1), "one JSON array, not an object on each line. Convert it: jq -c '.[]'"),
        (json.dumps(ROWS[0], indent=1), "a JSON object over several lines, not one on each line. Convert it: jq -c ."),
        ("\ufefftext,url\n1,2\n", f"{NONE} 2 lines is a document; line 1: not JSON: "),
    ],
)  # fmt: skip
def test_a_file_without_documents_is_quarantined_before_work(content: str, reason: str) -> None:
    Path("a.jsonl").write_text(content, encoding="utf-8")
    assert refusal("a.jsonl").startswith(reason)


def test_utf16_is_named_before_work() -> None:
    Path("a.jsonl").write_text('{"text": "a"}\n', encoding="utf-16")
    assert refusal("a.jsonl") == "UTF-16, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n\n",
        '{"txt": 1}\n{"text": "a"}\n',
        '{"text": null}\n',
        '{"txt": "' + "x" * (2 << 20) + '"}\n{"text": "a"}\n',
    ],
)
def test_a_file_that_may_have_documents_is_planned(content: str) -> None:
    Path("a.jsonl").write_text(content)
    assert len(plan("a.jsonl").partitions) == 1


def test_only_the_first_files_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colophon.pipeline.inputs.mappings.SAMPLED_FILES", 2)
    write_json_lines(Path("a.jsonl"), ROWS)
    for name in ("b.jsonl", "c.jsonl"):
        write_json_lines(Path(name), [{"txt": "a"}])
    inputs = plan("a.jsonl", "b.jsonl", "c.jsonl")
    assert [part.source for part in inputs.partitions] == ["a.jsonl", "c.jsonl"]
    assert [entry.source for entry in inputs.quarantine] == ["b.jsonl"]
    assert sample.SAMPLED_FILES == 64


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.arrow", "a.csv"])
def test_a_mapping_that_matches_no_file_is_an_error_with_the_columns(name: str) -> None:
    if name == "a.jsonl":
        write_json_lines(Path(name), ROWS)
    elif name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), name)
    elif name == "a.arrow":
        table = pa.Table.from_pylist(ROWS)
        with pa.ipc.new_file(name, table.schema) as writer:
            writer.write_table(table)
    else:
        Path(name).write_text("text,link,metadata\na,b,c\n")
    assert len(plan(name, url="link").partitions) == 1
    for columns in ({"id": "key"}, {"url": "lnk"}):
        ((column, in_input),) = columns.items()
        expected = rf"input.columns.{column}: no file has '{in_input}'; columns of the first: text, link, metadata"
        with pytest.raises(UsageError, match=expected):
            plan(name, **columns)


def test_a_mapping_may_match_one_file_and_one_late_line_only() -> None:
    write_json_lines(Path("a.jsonl"), [*ROWS, {"text": "t", "late": "u"}])
    write_json_lines(Path("b.jsonl"), ROWS)
    assert len(plan("a.jsonl", "b.jsonl", url="late").partitions) == 2
    assert len(plan("a.jsonl", url="metadata.url").partitions) == 1
    with pytest.raises(UsageError, match=r"no file has 'metadata\.uri'; columns of the first: text, link, metadata, "):
        plan("a.jsonl", url="metadata.uri")


def test_a_column_that_no_line_has_is_shown(project: Path) -> None:
    write_json_lines(
        Path("nested.jsonl"), [{"text": "a", "metadata": {"url": "u"}, "dump": "CC-MAIN-2024-10", "score": 1}]
    )
    expected = "annotators.url: every value is null. Does the input have its columns? [input.columns] maps names"
    called = run("--set", 'input.paths=["nested.jsonl"]')
    assert called.code == 0
    assert expected in called.out
    assert "annotators.crawl: every" not in called.out
    write_json_lines(Path("flat.jsonl"), [{"text": "a", "url": "https://a.example/"}])
    both = run("--set", 'input.paths=["*.jsonl"]', "--rebuild")
    assert "annotators.url: every value is null in 1 JSONL files, such as nested.jsonl. Do they have" in both.out
    assert expected not in both.out
    mapped = run("--set", 'input.paths=["nested.jsonl"]', "--set", 'input.columns={url="metadata.url"}', "--rebuild")
    assert mapped.code == 0
    assert expected not in mapped.out


def test_nothing_is_written_for_input_without_documents(project: Path) -> None:
    write_json_lines(Path("bad.jsonl"), [{"txt": "a", "url": "u", "dump": "d", "score": 1}] * 9)
    before = snapshot()
    called = run("--set", 'input.paths=["bad.jsonl"]')
    assert called.code == 2
    assert called.line.startswith(
        "recipe.toml: no input file can be read; the first, bad.jsonl: none of the first 9 lines"
    )
    called = run("--set", 'input.columns={url="lnk"}')
    assert called.code == 2
    assert called.line.startswith("recipe.toml: ")
    assert snapshot() == before
