"""The benchmark of duplicates on small data: edits have about the similarity asked for, recall is the formula's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.duplicates import (
    RESULTS,
    Cost,
    cost_table,
    edited,
    jaccard,
    main,
    recall_table,
    recalls,
    shingles_of,
)
from tests.pages import PAGES


def text(seed: int, size: int = 400) -> str:
    return " ".join(f"w{number}" for number in np.random.default_rng(seed).integers(0, 5000, size))


@pytest.mark.parametrize("similarity", [0.7, 0.9])
def test_edits_leave_the_similarity_that_is_asked_for(similarity: float) -> None:
    rng = np.random.default_rng(0)
    found = [jaccard(shingles_of(each), shingles_of(edited(each, similarity, rng))) for each in map(text, range(60))]
    assert abs(np.mean(found) - similarity) < 0.03


def test_recall_among_copies_and_among_pairs_of_the_texts() -> None:
    texts = [text(seed) for seed in range(30)]
    texts.append(" ".join([*texts[0].split()[:-22], "other"]))
    of_copies, natural = recalls(texts, copies=150, seed=1)
    for row in of_copies:
        low, high = row.interval
        assert row.pairs > 10
        assert low - 0.05 < row.expected < high + 0.05
    assert [(row.similarity, row.pairs, row.found) for row in natural] == [(0.9, 1, 1)] or natural == []


def test_the_page_has_the_tables_of_the_results_and_the_cost_is_nearly_linear() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    for found in (recall_table(results), cost_table(results)):
        assert found in PAGES["annotators"], (
            f"docs/annotators.md: paste `python -m benchmarks.duplicates table`:\n{found}"
        )
    costs = [Cost(**row) for row in results["costs"]]
    first, last = min(row.documents for row in costs), max(row.documents for row in costs)
    of_first, of_last = (np.median([row.seconds for row in costs if row.documents == size]) for size in (first, last))
    assert last >= 16 * first
    assert of_last / last < 2 * of_first / first


@pytest.mark.slow
def test_a_small_measurement_prints_both_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"text": [text(seed) for seed in range(12)]}), tmp_path / "a.parquet")
    options = ("--copies", "30", "--sizes", "1000,2000", "--rounds", "1", "--results", f"{tmp_path}/results.json")
    main(["measure", "--texts", str(tmp_path / "*.parquet"), *options])
    printed = capsys.readouterr().out
    assert "| 0.9 | edited copies | " in printed
    assert "| 2,000 |" in printed
