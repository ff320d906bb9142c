"""Exclusions, grouped: memory and records do not grow with the number of bad lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from colophon.pipeline.inputs.problems import Problems
from colophon.pipeline.runs.run import describe
from colophon.shards.manifest import Manifest
from colophon.shards.records import QuarantineEntry, QuarantineExample
from tests.pipeline.inputs.test_readers import partitions
from tests.pipeline.project import colophon, manifest, quarantine, run


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Problems:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"text": "a"}\n')
    return Problems(partitions("a.jsonl")[0], "annotate")


def test_one_entry_for_each_kind_with_a_count_and_three_examples(problems: Problems) -> None:
    for line in range(1, 100_001):
        kind = "even" if line % 2 == 0 else "odd"
        problems.add(line, f"{kind} {line}", kind=kind)
    problems.add(100_001, "alone", kind="alone")
    odd, even, alone = problems.entries
    assert problems.count == 100_001
    assert (odd.line, odd.reason, odd.count, odd.rows) == (1, "odd 1", 50_000, 50_000)
    assert odd.examples == [QuarantineExample(line=n, reason=f"odd {n}") for n in (1, 3, 5)]
    assert (even.line, even.count) == (2, 50_000)
    assert (alone.line, alone.count, alone.examples) == (100_001, 1, [])
    assert describe(odd) == "a.jsonl:1: odd 1 (annotate; 50,000 such, at 1, 3, 5, ...)"
    assert describe(alone) == "a.jsonl:100001: alone (annotate)"


def test_a_reason_is_short(problems: Problems) -> None:
    problems.add(1, "x" * 10_000, kind="long")
    assert problems.entries[0].reason == "x" * 499 + "…"


def test_the_rest_of_a_damaged_file_is_an_entry_of_its_own(problems: Problems) -> None:
    problems.add(2, "bad", kind="bad")
    problems.end(7, "record 7 is cut")
    first, rest = problems.entries
    assert (first.line, first.rows) == (2, 1)
    assert (rest.line, rest.rows, rest.reason) == (7, None, "record 7 is cut")


def test_entries_of_older_runs_are_read() -> None:
    old = '{"source": "a", "partition": "p", "stage": "annotate", "line": 4, "reason": "r", "rows": 1}'
    entry = QuarantineEntry.model_validate_json(old)
    assert (entry.count, entry.examples) == (1, [])


def test_a_thousand_bad_lines_are_one_entry_everywhere(project: Path) -> None:
    Path("data/bad.jsonl").write_text('{"text": "t", "url": "u", "dump": "d", "score": 1}\n' + "broken\n" * 1000)
    paths = ("--set", 'input.paths=["data/part-0.parquet", "data/bad.jsonl"]')
    called = run(*paths)
    assert (called.code, called.err) == (3, "")
    (entry,) = quarantine()
    assert (entry.line, entry.count, entry.rows) == (2, 1000, 1000)
    assert [example.line for example in entry.examples] == [2, 3, 4]
    assert manifest().quarantine == [entry]
    shown = "bad.jsonl:2: not JSON: unexpected character"
    assert shown in called.out
    assert "(annotate, tokenize; 1,000 such, at 2, 3, 4, ...)" in called.out
    assert shown in colophon("status", "recipe.toml", *paths).out
    assert colophon("verify", "recipe.toml", *paths).code == 0
    strict = run(*paths, "--strict", "--set", "output.path=strict")
    assert strict.code == 1
    assert "--strict: data/bad.jsonl:2: not JSON" in strict.line
    assert isinstance(manifest(), Manifest)


def test_kinds_without_end_are_counted_together(problems: Problems) -> None:
    """A kind may hold a name from the file, such as that of an encoding."""
    for n in range(5000):
        problems.add(n + 1, f"encoding {n}", kind=f"encoding {n}")
    assert len(problems.entries) == 101
    assert (problems.entries[-1].count, problems.count) == (4900, 5000)
