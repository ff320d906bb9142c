"""`colophon report A B`: the numbers agree with the files of both runs, and hostile text is harmless."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from string import Template
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.reports.comparison import columns, documents
from colophon.pipeline.reports.comparison.columns import OTHER, ComparedColumn, compared_columns
from colophon.pipeline.reports.comparison.comparison import Comparison, compare
from colophon.shards.run_output import open_run
from tests.hostile import STRINGS as HOSTILE
from tests.pipeline.project import Called, colophon, run, snapshot, write_tokenizer
from tests.pipeline.reports.test_page import Parsed

RECIPE = Template("""
[input]
paths = ["$data/*.parquet"]
[output]
path = "$output"
[annotators.url]
[annotators.meta]
type = "columns"
[annotators.meta.columns]
grade = { column = "score", type = "number", bins = { edges = [$edge, 3.0], labels = ["low", "mid", "high"] } }
grade_score = { column = "score", type = "number" }
kind = {}
[tokenizer]
path = "small.tiktoken"
pattern = "gpt2"
[pack]
sequence_length = 64
[layouts.plain]
position = "plain"
[layouts.prepend-grade]
position = "prepend"
template = "{grade} {kind}"
max_metadata_tokens = 24
dropout = $dropout
""")
KINDS = ("news", "shop", "forum", *HOSTILE[:4])


def rows(numbers: range, *, moved: float = 0.0) -> list[dict[str, Any]]:
    return [
        {
            "text": f"document {i} " * (i % 7 + 1),
            "id": f"id-{i}",
            "url": f"https://host{i % 5}.example.org/{HOSTILE[i % 5]}/{i}",
            "score": None if i % 13 == 4 else (i * 37 % 50) / 10 + (moved if i % 2 else 0.0),
            "kind": KINDS[i % len(KINDS)],
        }
        for i in numbers
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs. `b` has the input of `a` and an edge moved; `c` has an input that shares documents 60 to 99."""
    root = tmp_path_factory.mktemp("compared")
    write_tokenizer(root / "small.tiktoken")
    (root / "first").mkdir()
    (root / "second").mkdir()
    schema = pa.schema(
        [("text", "string"), ("id", "string"), ("url", "string"), ("score", "float64"), ("kind", "string")]
    )
    for path, found in {
        "first/one.parquet": rows(range(50)),
        "first/two.parquet": rows(range(50, 100)),
        "second/x.parquet": [*rows(range(60, 130), moved=1.0), *rows(range(60, 63))],
    }.items():
        pq.write_table(pa.Table.from_pylist(found, schema), root / path, row_group_size=20)
    here = Path.cwd()
    os.chdir(root)
    try:
        for name, data, edge, dropout in (
            ("a", "first", 1.0, 0.0),
            ("b", "first", 2.0, 0.5),
            ("c", "second", 1.0, 0.0),
        ):
            text = RECIPE.substitute(data=data, output=name, edge=edge, dropout=dropout)
            Path(f"{name}.toml").write_text(text)
            called = run(recipe=f"{name}.toml")
            assert called.code == 0, called.err
    finally:
        os.chdir(here)
    return root


@pytest.fixture(autouse=True)
def inside(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)


def compared(first: str, second: str) -> Comparison:
    return compare(open_run(first), open_run(second))


def values(name: str) -> dict[str, dict[str, Any]]:
    """By id, the annotations of a run; of a repeated id those of its first row."""
    frame = open_run(name).annotations().collect()
    return {row["id"]: row for row in reversed(frame.to_dicts())}


def in_both(first: str, second: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    before, after = values(first), values(second)
    return [(row, after[name]) for name, row in before.items() if name in after]


def column(found: Comparison, name: str) -> ComparedColumn:
    return next(one for one in found.columns if one.name == name)


def changed(found: Comparison, name: str) -> documents.ChangedColumn:
    assert found.documents is not None
    return next(one for one in found.documents.columns if one.name == name)


@pytest.mark.parametrize(("second", "both", "only"), [("b", 100, (0, 0)), ("c", 40, (60, 30))])
@pytest.mark.parametrize("rows_at_once", [7, 1_000_000])
def test_documents_are_matched_by_id(
    second: str, both: int, only: tuple[int, int], rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether partitions are aligned or not, and whether ids are joined at once or in parts."""
    monkeypatch.setattr(documents, "ROWS_PER_QUERY", rows_at_once)
    found = compared("a", second)
    assert found.documents is not None
    assert (found.documents.both, found.documents.only_before, found.documents.only_after) == (both, *only)
    assert found.documents.repeated == ((0, 0) if second == "b" else (0, 3))
    pairs = in_both("a", second)
    for name in ("grade", "grade_score", "kind", "url", "url_host"):
        assert changed(found, name).changed == sum(before[name] != after[name] for before, after in pairs), name
    expected = Counter((before["grade"] or "(null)", after["grade"] or "(null)") for before, after in pairs)
    assert {(before, after): n for before, after, n in changed(found, "grade").pairs} == expected
    assert changed(found, "grade").changed > 0
    known = [
        abs(after["grade_score"] - before["grade_score"])
        for before, after in pairs
        if None not in (before["grade_score"], after["grade_score"])
    ]
    assert changed(found, "grade_score").mean_change == pytest.approx(sum(known) / len(known))


def test_partitions_of_the_same_rows_with_other_ids_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a change of the column of ids: the names of partitions are the same."""
    frame = documents._Side.frame

    def rotated(side: documents._Side, partitions: list[str]) -> pl.LazyFrame:
        found = frame(side, partitions)
        return found.select(pl.all().reverse()) if side.run.path.name == "b" else found

    expected = compared("a", "b").documents
    monkeypatch.setattr(documents._Side, "frame", rotated)
    assert compared("a", "b").documents == expected


@pytest.mark.parametrize("rows_at_once", [7, 1_000_000])
def test_examples_have_the_labels_and_scores_of_both_runs(rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "NUM_EXAMPLES", 5)
    whole = changed(compared("a", "b"), "grade").examples
    monkeypatch.setattr(documents, "ROWS_PER_QUERY", rows_at_once)
    found = changed(compared("a", "b"), "grade").examples
    assert found == whole
    before, after = values("a"), values("b")
    assert len({one.id for one in found}) == 5
    for one in found:
        assert (one.before, one.after) == (before[one.id]["grade"], after[one.id]["grade"])
        assert one.before != one.after
        assert (one.score_before, one.score_after) == (before[one.id]["grade_score"], after[one.id]["grade_score"])
        assert one.url == before[one.id]["url"]


def test_distances_are_those_of_their_formulas() -> None:
    found = column(compared("a", "c"), "kind")
    shares = [
        {value: n / total for value, n in counts.items()}
        for name in "ac"
        for counts in [Counter(open_run(name).annotations().collect()["kind"].to_list())]
        for total in [counts.total()]
    ]
    p, q = ([each.get(kind, 0.0) for kind in KINDS] for each in shares)
    assert found.total_variation == pytest.approx(sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2)
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    assert found.divergence == pytest.approx(entropy(middle) - (entropy(p) + entropy(q)) / 2)


def entropy(shares: list[float]) -> float:
    return -sum(share * math.log2(share) for share in shares if share)


def test_equal_and_disjoint_distributions_are_the_ends_of_both_distances() -> None:
    for counts, expected in ((((2, 4), (1, 2)), 0.0), (((3, 0), (0, 5)), 1.0)):
        one = ComparedColumn(name="x", before=None, after=None, values=("a", "b"), counts=counts)
        assert (one.total_variation, one.divergence) == (pytest.approx(expected), pytest.approx(expected))
    none = ComparedColumn(name="x", before=None, after=None, values=("a",), counts=((0, 3),))
    assert (none.total_variation, none.divergence) == (None, None)


def test_numbers_have_the_same_intervals_in_both_runs() -> None:
    found = column(compared("a", "c"), "grade_score")
    numbers = [open_run(name).annotations().collect()["grade_score"].drop_nulls() for name in "ac"]
    assert found.bins is not None
    low, high = min(n.min() for n in numbers), max(n.max() for n in numbers)  # type: ignore[type-var]
    assert (found.bins.low, found.bins.high) == (low, high)
    assert [sum(side) for side in zip(*found.counts, strict=True)] == [len(n) for n in numbers]


def test_values_that_may_be_among_the_rest_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distance is then a lower bound."""
    whole = {one.name: one for one in compared_columns(open_run("a"), open_run("c"))}["url_host"]
    monkeypatch.setattr("colophon.pipeline.reports.page.columns.MOST_NAMES", 3)
    found = {one.name: one for one in columns.compared_columns(open_run("a"), open_run("c"))}["url_host"]
    assert found.values[-1] == OTHER
    assert [sum(side) for side in zip(*found.counts, strict=True)] == [100, 73]
    assert whole.total_variation is not None
    assert found.total_variation is not None
    assert found.total_variation <= whole.total_variation


def called(*arguments: str) -> Called:
    found = colophon("report", *arguments)
    assert (found.code, found.err) == (0, "")
    return found


def test_settings_bins_and_tokens_that_differ() -> None:
    found = json.loads(called("a", "b.toml", "--json").out)
    settings = {
        kind: {one["key"]: (one["a"], one["b"]) for one in of_kind} for kind, of_kind in found["settings"].items()
    }
    assert settings["recipe"] == {
        "annotators.meta.columns.grade.bins.edges": ([1.0, 3.0], [2.0, 3.0]),
        "layouts.prepend-grade.dropout": (0.0, 0.5),
    }
    assert [*settings["bins"].values()] == [([1.0, 3.0], [2.0, 3.0])]
    assert settings["outputs"] == {}
    for name in ("plain", "prepend-grade"):
        for run_name in "ab":
            counts = open_run(run_name).manifest.layouts[name].records
            tokens = sum(record.counts[f"tokens_{role}"] for record in counts for role in ("text", "metadata", "pad"))
            cost = found["layouts"][name][run_name]
            assert sum(cost["tokens_by_role"][role] for role in ("text", "metadata", "pad")) == tokens
            assert cost["tokens"] == cost["sequences"] * 65
    assert found["layouts"]["plain"]["a"]["against_plain"] == 0
    assert (
        found["layouts"]["prepend-grade"]["a"]["against_plain"]
        > found["layouts"]["prepend-grade"]["b"]["against_plain"]
        > 0
    )
    assert (found["documents"]["both"], found["notes"]) == (100, [])


def test_the_terminal_and_the_page_have_the_same_tables() -> None:
    found = called("a", "c")
    page = Path("c/report/comparison.html").read_text(encoding="utf-8")
    grade = changed(compared("a", "c"), "grade")
    assert f"grade: {grade.changed} documents changed" in found.out
    assert f"grade: {grade.changed} of 40 documents changed" in page
    assert "documents in both runs: 40; in A alone: 60; in B alone: 30; 3 rows repeat an id" in found.out
    for heading in ("settings of the recipes that differ", "annotation columns", "tokens of layouts"):
        assert heading in found.out
        assert heading in page
    assert found.out.splitlines()[-1].startswith("c/report/comparison.html: 40 documents, ")


def test_text_from_data_is_no_markup() -> None:
    found = called("a", "c", "--to", "page.html")
    text = Path("page.html").read_text(encoding="utf-8")
    parsed = Parsed(text)
    assert parsed.tags["script"] == 3
    assert parsed.tags["img"] == parsed.tags["b"] == parsed.tags["iframe"] == 0
    assert not [name for name, _ in parsed.attributes if name.startswith("on") or name in ("src", "action", "data")]
    assert not re.search(r'"(url|href|signal|expr|calculate|transform|params)":', parsed.scripts[0])
    assert "\x1b" not in found.out
    assert "\u202e" not in found.out + text


def test_runs_without_a_common_id_and_with_other_tokenizers_are_compared_as_far_as_possible(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows(range(500, 520))), tmp_path / "data/part.parquet")
    other = [f"input.paths={tmp_path}/data/*.parquet", f"output.path={tmp_path}/out", "tokenizer.pattern=o200k_base"]
    ran = run(*(part for one in other for part in ("--set", one)), recipe="a.toml")
    assert ran.code == 0, ran.err
    found = called("a", str(tmp_path / "out"))
    assert "no id is in both runs: no document can be compared" in found.out
    assert "the tokenizers differ (small): numbers of tokens are of different units" in found.out
    assert "documents in both runs: 0; in A alone: 100; in B alone: 20" in found.out


def test_without_tokens_there_are_no_ids(tmp_path: Path) -> None:
    ran = colophon("annotate", "a.toml", "--executor", "inline", "--set", f"output.path={tmp_path}/out")
    assert ran.code == 0, ran.err
    found = json.loads(called("a", str(tmp_path / "out"), "--json").out)
    assert found["documents"] is None
    assert found["notes"] == ["B has no tokens, which hold the ids: its documents cannot be matched"]
    assert [one["total_variation"] for one in found["columns"] if one["name"] == "kind"] == [0]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("a", "a"), "report: a and a are the same run, a"),
        (("a", "a.toml"), "report: a and a.toml are the same run, a"),
        (("a", "nothing"), "no recipe file nothing; bundled recipes: "),
        (("a", "first"), "first is not the output of a finished run"),
        (("a", "b", "--set", "pack.seed=1"), "report: --set changes one recipe: name the output directories"),
    ],
)
def test_errors_are_one_line_and_write_nothing(arguments: tuple[str, ...], line: str) -> None:
    before = snapshot()
    found = colophon("report", *arguments)
    assert found.code == 2
    assert line in found.line
    assert snapshot() == before
