"""The cost of `group_by`: its page, and a small measurement with equal losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.group_by import RESULTS, TINY, a_job, measure, table
from tests.pages import PAGES
from tests.trainer.courses import metrics_of


def test_the_page_has_the_table_of_the_results_and_the_cost_is_under_two_percent() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    found = table(results)
    assert found in PAGES["training"], f"docs/training.md: paste `python -m benchmarks.group_by table`:\n{found}"
    assert all(one["added"] < 0.02 * one["reference_seconds"] for one in results["parts"].values())


@pytest.mark.slow
def test_a_small_measurement_takes_turns_with_equal_losses(tmp_path: Path) -> None:
    job, reference = (a_job(TINY, num_ids=512, steps=7, work=str(tmp_path / name)) for name in ("job", "reference"))
    results = measure(job, reference)
    assert {part: one["turns"] for part, one in results["parts"].items()} == {"update": 4, "validation": 4}
    assert all(one["low"] <= one["added"] <= one["high"] for one in results["parts"].values())
    assert table(results).count("\n") == 6
    without, grouped = metrics_of(job.output, "without"), metrics_of(job.output, "with")
    assert len(without) == len(grouped) == 14
    for mine, other in zip(without, grouped, strict=True):
        prefix = "" if "loss" in other else "validation_"
        losses, tokens = (other.pop(f"{prefix}text_{name}_by") for name in ("loss", "tokens"))
        assert mine == other
        assert {column: sum(values.values()) for column, values in tokens.items()}.keys() == set(losses)
        assert len(losses["quality"]) <= 5
        assert all(value.startswith("topic ") for value in losses["topic"])
