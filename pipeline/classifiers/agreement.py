"""The agreement of a classifier with its teacher on held-out texts, with intervals from samples of their domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from colophon.shards.common.arrays import NumPyArray

NUM_RESAMPLES = 300
_TAILS = (2.5, 97.5)
_CALIBRATION_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number, and its 95 % interval: how much it would change with other domains."""

    value: float
    low: float | None
    """None where one domain is all there is, or the number is undefined in samples."""
    high: float | None


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """The texts whose best label has a probability in one tenth of 0 to 1."""

    texts: int
    mean_probability: float
    accuracy: float


def with_intervals(
    metrics: Mapping[str, Callable[[NumPyArray], float]], groups: NumPyArray, *, seed: int
) -> dict[str, Interval]:
    """Each metric, and its interval from samples of groups drawn with replacement; all metrics see the same samples.

    Args:
        metrics: functions of the weights of the texts, float64 [n], that return a number or NaN.
        groups: int64 [n], the number of each text's group, from 0.
        seed: of the samples.
    """
    num_groups = int(groups.max()) + 1
    random = np.random.default_rng(seed)
    draws = {name: [metric(np.ones(len(groups)))] for name, metric in metrics.items()}
    for _ in range(NUM_RESAMPLES if num_groups > 1 else 0):
        times = np.bincount(random.integers(0, num_groups, num_groups), minlength=num_groups)
        weights = times[groups].astype(np.float64)
        for name, metric in metrics.items():
            draws[name].append(metric(weights))
    return {name: _interval(np.array(each)) for name, each in draws.items()}


def _interval(draws: NumPyArray) -> Interval:
    sampled = draws[1:][np.isfinite(draws[1:])]
    low, high = np.percentile(sampled, _TAILS).tolist() if len(sampled) else (None, None)
    return Interval(value=float(draws[0]), low=low, high=high)


def accuracy(right: NumPyArray, weights: NumPyArray) -> float:
    """The share of texts, by weight, that are right: bool [n]."""
    return _ratio(float((weights * right).sum()), float(weights.sum()))


def confusion(true: NumPyArray, predicted: NumPyArray, num_labels: int, weights: NumPyArray) -> NumPyArray:
    """float64 [labels, labels]: the weight of the texts with label i that were predicted to have label j."""
    places = true * num_labels + predicted
    return np.bincount(places, weights=weights, minlength=num_labels**2).reshape(num_labels, num_labels)


def macro_f1(table: NumPyArray) -> float:
    """The mean F1 over the labels that occur, from a confusion table."""
    occurs = table.sum(axis=1)
    total = occurs + table.sum(axis=0)
    known = occurs > 0
    scores = 2 * np.diag(table)[known] / total[known]
    return float(scores.mean()) if len(scores) else float("nan")


class Ranks:
    """The ranks of numbers, for any weights of the texts: equal numbers have the same rank."""

    def __init__(self, values: NumPyArray) -> None:
        """Sort float64 [n] once."""
        distinct, self._places = np.unique(values, return_inverse=True)
        self._num_distinct = len(distinct)

    def of(self, weights: NumPyArray) -> NumPyArray:
        """float64 [n]: the weight below each number, and half of the weight of those equal to it."""
        sizes = self.sums(weights)
        ranks: NumPyArray = (np.cumsum(sizes) - sizes / 2)[self._places]
        return ranks

    def sums(self, weights: NumPyArray) -> NumPyArray:
        """float64 [distinct numbers, ascending]: the weight of each."""
        return np.bincount(self._places, weights=weights, minlength=self._num_distinct)


def spearman(first: Ranks, second: Ranks, weights: NumPyArray) -> float:
    """The rank correlation of two columns of numbers; NaN if one of them is constant."""
    total = weights.sum()
    x, y = first.of(weights), second.of(weights)
    x, y = x - (weights * x).sum() / total, y - (weights * y).sum() / total
    scale = np.sqrt((weights * x * x).sum() * (weights * y * y).sum())
    return _ratio(float((weights * x * y).sum()), float(scale))


def auc(scores: Ranks, is_positive: NumPyArray, weights: NumPyArray) -> float:
    """The probability that a positive text has a higher score than a negative one, ties counting half."""
    positive, negative = scores.sums(weights * is_positive), scores.sums(weights * ~is_positive)
    below = np.cumsum(negative) - negative / 2
    return _ratio(float((positive * below).sum()), float(positive.sum() * negative.sum()))


def calibration(probabilities: NumPyArray, right: NumPyArray) -> list[CalibrationBin | None]:
    """For each tenth of 0 to 1: the texts whose best label has such a probability; None without any."""
    places = np.clip((probabilities * _CALIBRATION_BINS).astype(int), 0, _CALIBRATION_BINS - 1)
    tenths = [places == place for place in range(_CALIBRATION_BINS)]
    return [_calibration_bin(probabilities[tenth], right[tenth]) for tenth in tenths]


def calibration_error(bins: list[CalibrationBin | None]) -> float:
    """The expected calibration error: |mean probability − accuracy|, mean over texts."""
    known = [each for each in bins if each is not None]
    errors = [each.texts * abs(each.mean_probability - each.accuracy) for each in known]
    return _ratio(sum(errors), sum(each.texts for each in known))


def _calibration_bin(probabilities: NumPyArray, right: NumPyArray) -> CalibrationBin | None:
    if not len(right):
        return None
    return CalibrationBin(texts=len(right), mean_probability=float(probabilities.mean()), accuracy=float(right.mean()))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
