from __future__ import annotations

import numpy as np
import pytest

from colophon.trainer.evaluation.bootstrap import RatioDraws


def test_intervals_of_ratios_and_their_differences() -> None:
    random = np.random.default_rng(1)
    tokens = random.integers(50, 500, 400)
    hard = random.normal(3, 0.5, 400)
    nats = np.stack([tokens * hard, tokens * (hard - 0.1 + random.normal(0, 0.05, 400))])
    draws = RatioDraws(nats, tokens[None], seed=0, num_resamples=2000)
    one = draws.ratio(0, 0)
    assert one.value == pytest.approx(nats[0].sum() / tokens.sum())
    assert one.low is not None
    assert one.high is not None
    # The delta method gives the standard error of a ratio of sums.
    spread = np.sqrt(((nats[0] - one.value * tokens) ** 2).sum()) / tokens.sum()
    assert one.high - one.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    difference = draws.difference(1, 0, 0)
    assert difference.value == pytest.approx(-0.1, abs=0.02)
    assert difference.low is not None
    assert difference.high is not None
    assert (
        difference.high - difference.low < (one.high - one.low) / 5
    )  # documents that are hard for both do not widen it
    same = draws.difference(0, 0, 0)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    again = RatioDraws(nats, tokens[None], seed=0, num_resamples=2000)
    assert again.ratio(0, 0) == one
    assert RatioDraws(nats, tokens[None], seed=1, num_resamples=2000).ratio(0, 0) != one


def test_intervals_contain_the_true_value_in_95_percent_of_samples() -> None:
    random, hits = np.random.default_rng(2), 0
    for i in range(200):
        tokens = random.integers(50, 500, 100)
        nats = tokens * random.normal(3, 0.5, 100)
        found = RatioDraws(nats[None], tokens[None], seed=i, num_resamples=300).ratio(0, 0)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 3 <= found.high
    assert 180 <= hits <= 199


def test_one_document_has_no_interval() -> None:
    found = RatioDraws(np.array([[6.0]]), np.array([[2.0]]), seed=0).ratio(0, 0)
    assert (found.value, found.low, found.high) == (3, None, None)
