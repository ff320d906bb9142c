"""Paired seeds: the statistics on numbers whose answer is known, the page, and a small measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from benchmarks.paired import RESULTS, Pairing, Study, measure, pairings, read_results, table
from tests.pages import PAGES


def drawn(*shape: int, seed: int) -> np.ndarray[Any, Any]:
    """[..., seeds, layouts]: noise of variance 1 that the layouts of a seed share, and of variance 1/4 of their own."""
    random, (*studies, seeds, layouts) = np.random.default_rng(seed), shape
    return random.normal(size=(*studies, seeds, 1)) + random.normal(size=shape) / 2 + np.arange(layouts)


def test_the_ratio_is_the_part_of_the_noise_that_is_not_shared() -> None:
    found = Pairing.of(drawn(4000, 3, seed=0).tolist())
    assert (found.layouts, found.seeds) == (3, 4000)
    assert found.spread == pytest.approx(1.25**0.5, rel=0.05)
    assert found.paired == pytest.approx(0.5, rel=0.05)
    low, high = found.ratio_interval
    assert low < found.ratio < high
    assert high - low < 0.05
    alone = Pairing.of(np.random.default_rng(1).normal(size=(4000, 2)).tolist())
    assert alone.ratio == pytest.approx(1, rel=0.05)


def test_of_two_layouts_it_is_the_spread_of_the_difference() -> None:
    losses = drawn(7, 2, seed=2)
    found = Pairing.of(losses.tolist())
    first, second, difference = (np.var(one, ddof=1) for one in (*losses.T, losses[:, 0] - losses[:, 1]))
    assert found.ratio == pytest.approx((difference / (first + second)) ** 0.5)


def test_intervals_hold_the_truth_as_often_as_they_state() -> None:
    """For six seeds, in 400 studies: 95 % of the intervals, give or take four standard errors."""
    for layouts in (2, 5):
        studies = [Pairing.of(one.tolist()) for one in drawn(400, 6, layouts, seed=3)]
        hits = sum(low <= 0.2**0.5 <= high for low, high in (one.ratio_interval for one in studies))
        assert abs(hits - 380) < 4 * stats.binom.std(400, 0.95)


def test_the_page_has_the_table_of_the_results() -> None:
    found = table(read_results(RESULTS))
    assert found in PAGES["training"], f"docs/training.md: paste `python -m benchmarks.paired table`:\n{found}"


def write_texts(path: Path, *, number: int) -> Path:
    words = np.random.default_rng(number).choice(
        ["metadata", "of", "texts", "is", "before", "or", "after"], (number, 60)
    )
    rows = {
        "id": [f"<{i}>" for i in range(number)],
        "text": [" ".join(row) for row in words.tolist()],
        "url": [f"https://host{i % 3}.example.org/{i}" for i in range(number)],
    }
    pq.write_table(pa.table(rows), path)
    return path


@pytest.mark.slow
def test_a_small_measurement_continues_where_it_was(tmp_path: Path) -> None:
    model = {"num_layers": 1, "hidden_size": 16, "ffn_size": 16, "num_heads": 2, "num_kv_heads": 1}
    study = Study(
        work=tmp_path / "work",
        files=[write_texts(tmp_path / "a.parquet", number=40), write_texts(tmp_path / "b.parquet", number=9)],
        seeds=2,
        documents=40,
        held_out=9,
        sequence_length=64,
        vocabulary_size=280,
        training={"model": model, "text_tokens": 2000, "batch_size": 4, "schedule": {"warmup_steps": 1}},
    )
    lines: list[str] = []
    results = measure(study, {}, log=lines.append)
    assert len(lines) == len(results["losses"]) == 8
    found = pairings(results)
    assert [one.seeds for one in found.values()][1:] == [2, 2]
    assert all(one.spread > 0 for one in found.values())
    part = {**results, "losses": results["losses"][:-1]}
    again = measure(study, json.loads(json.dumps(part)), log=lines.append)
    assert len(lines) == 9
    assert again["losses"] == results["losses"]  # the same seeds, the same losses, to the bit
    assert table(again).count("\n") == 5
