"""The measurement of a recipe's annotators, on a small project."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.annotators import first_columns, measure, table
from tests.pipeline.project import resolved_recipe, write_project


def test_every_annotator_of_a_recipe_is_measured_in_every_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    resolved = resolved_recipe()
    assert {len(column) for column in first_columns(resolved, 90).values()} == {90}
    found = measure(resolved, documents=90, rounds=3, reference="crawl")
    assert {name: len(rounds) for name, rounds in found.items()} == {"url": 3, "crawl": 3, "edu_score": 3}
    assert [ratio for _, ratio in found["crawl"]] == [1, 1, 1]


def test_the_table_has_medians_and_the_range_of_the_ratios() -> None:
    found = {
        "slow": [(0.41, 0.0102), (0.43, 0.0098), (0.4, 0.011)],
        "fast": [(7310.0, 180.0)] * 3,
        "quality": [(41.0, 1.0)] * 3,
    }
    assert table(found, reference="quality").splitlines()[2:] == [
        "| `fast` | 7,300 | 180 (180–180) |",
        "| `quality` | 41 | 1 (1–1) |",
        "| `slow` | 0.41 | 0.01 (0.0098–0.011) |",
    ]
