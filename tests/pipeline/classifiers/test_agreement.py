from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from colophon.pipeline.classifiers.agreement import (
    Ranks,
    accuracy,
    auc,
    calibration,
    calibration_error,
    confusion,
    macro_f1,
    spearman,
    with_intervals,
)

RNG = np.random.default_rng(0)
SIZE = 200
TIMES = RNG.integers(0, 4, SIZE)
"""How often each text is in a sample: a weight of 2 is the same text twice."""
TRUE, PREDICTED = RNG.integers(0, 4, SIZE), RNG.integers(0, 5, SIZE)
FIRST = RNG.normal(size=SIZE).round(1)
SECOND = (FIRST + RNG.normal(size=SIZE)).round(1)


def test_weights_are_repeated_texts() -> None:
    """All numbers are those of scipy and scikit-learn on the sample itself, ties included."""
    weights = TIMES.astype(np.float64)
    true, predicted, first, second = (np.repeat(each, TIMES) for each in (TRUE, PREDICTED, FIRST, SECOND))
    assert accuracy(TRUE == PREDICTED, weights) == pytest.approx(metrics.accuracy_score(true, predicted))
    expected = metrics.f1_score(true, predicted, average="macro", labels=np.unique(true), zero_division=0)
    assert macro_f1(confusion(TRUE, PREDICTED, 5, weights)) == pytest.approx(expected)
    assert spearman(Ranks(FIRST), Ranks(SECOND), weights) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert auc(Ranks(SECOND), FIRST > 0, weights) == pytest.approx(metrics.roc_auc_score(first > 0, second))


def test_numbers_that_are_undefined_are_nan() -> None:
    ones = np.ones(SIZE)
    assert np.isnan(spearman(Ranks(ones), Ranks(FIRST), ones))
    assert np.isnan(auc(Ranks(FIRST), np.ones(SIZE, bool), ones))


def test_an_interval_is_of_domains_not_of_texts() -> None:
    """Ten domains that are right or wrong as a whole: texts alone would give an interval a third as wide."""
    groups = np.arange(SIZE) % 10
    right = groups < 5
    found = with_intervals({"accuracy": lambda weights: accuracy(right, weights)}, groups, seed=0)["accuracy"]
    assert found.value == 0.5
    assert found.low is not None and found.high is not None
    assert 0.4 < found.high - found.low < 0.8
    again = with_intervals({"accuracy": lambda weights: accuracy(right, weights)}, groups, seed=0)["accuracy"]
    assert again == found
    alone = with_intervals({"accuracy": lambda w: accuracy(right, w)}, np.zeros(SIZE, int), seed=0)["accuracy"]
    assert (alone.value, alone.low, alone.high) == (0.5, None, None)


def test_calibration_compares_probabilities_with_shares_of_right_ones() -> None:
    bins = calibration(np.array([0.95, 0.97, 1.0, 0.55]), np.array([True, True, False, True]))
    assert [each is None for each in bins] == [True] * 5 + [False] + [True] * 3 + [False]
    last = bins[9]
    assert last is not None
    assert (last.texts, round(last.mean_probability, 4), round(last.accuracy, 4)) == (3, 0.9733, 0.6667)
    assert calibration_error(bins) == pytest.approx((3 * (0.97333 - 0.66667) + 0.45) / 4, abs=1e-4)
