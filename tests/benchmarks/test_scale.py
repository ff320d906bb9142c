"""The benchmark of many partitions: inputs have as many as they should, runs find them, tables have every size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scale import planning
from benchmarks.scale.page import planning_table, runs_table
from benchmarks.scale.planning import KINDS, plan, write_input
from benchmarks.scale.processes import summary
from benchmarks.scale.runs import STEPS, first_run, prepare, publication, write_recipe
from tests.pipeline.project import colophon


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_has_as_many_partitions_as_were_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(planning, "_FILES_OF_A_DIRECTORY", 4)
    monkeypatch.setattr(planning, "_ROW_GROUPS_OF_A_FILE", 2)
    write_input(kind, 10, tmp_path / "input")
    found = plan(tmp_path / "input")
    assert found["partitions"] == 10
    assert 0 <= found["search_seconds"] <= found["seconds"]
    assert found["peak_mb"] > 1


@pytest.mark.parametrize("is_prepared", [False, True])
def test_a_run_without_work_is_complete(tmp_path: Path, is_prepared: bool) -> None:
    write_input("row groups", 5, tmp_path / "input")
    recipe = write_recipe(tmp_path / "run", paths=tmp_path / "input")
    if is_prepared:
        prepare(recipe)
    else:
        assert first_run(recipe)["partitions"] == 5
    again, status = colophon("run", str(recipe)), colophon("status", str(recipe), "--json")
    assert again.code == 0, again.err
    assert "nothing to do" in again.out
    assert json.loads(status.out)["outputs"]["tokens"] == {
        "done": 5,
        "stale": 0,
        "running": 0,
        "quarantined": 0,
        "missing": 0,
    }


def test_a_publication_takes_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.scale.runs._PUBLICATIONS", 3)
    assert min(publication(tmp_path).values()) > 0
    assert len([*(tmp_path / "records" / "pending").iterdir()]) == 3


def test_the_tables_have_every_size_and_the_lines() -> None:
    found = summary(
        {
            size: [{"partitions": int(size), "seconds": int(size) / 1e5, "cpu_seconds": int(size) / 2e5, "peak_mb": 9}]
            for size in ("10000", "100000")
        }
    )
    of = {"machine": dict.fromkeys(("cpu", "cores", "memory_gb", "system"), 2), "rounds": 1}
    text = planning_table({**of, "kinds": {"jsonl": found}})
    assert "| JSONL files | 100,000 | 1.0 | 0.5 | 9 MB |" in text
    assert "JSONL files: 5 µs of CPU (R² = 1.0000)" in text
    published = {"cpu_seconds": {"median": 0.0005, "lowest": 0.0004, "highest": 0.0006}}
    text = runs_table({**of, "steps": dict.fromkeys(STEPS, found), "publication": published})
    assert all(f"| {step} | 100,000 | 1.0 | 0.5 | 9 MB |" in text for step in STEPS.values())
    assert "0.50 ms of CPU (0.40–0.60)" in text
