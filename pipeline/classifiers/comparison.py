"""The comparison of a classifier's probabilities with the teacher's judgements: metrics as functions of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.pipeline.classifiers.agreement import Ranks, accuracy, auc, confusion, macro_f1, spearman
from colophon.shards.common.arrays import NumPyArray

Metric = Callable[[NumPyArray], float]
"""A number, from the weights of the texts."""
Compared = tuple[dict[str, Metric], "tuple[tuple[int, ...], ...] | None", NumPyArray, NumPyArray]
"""Metrics by name, the confusion table, each text's best label (int64 [n]), and whether it is the teacher's."""


def compared_labels(
    rows: NumPyArray, labels: pa.Array, values: pa.Array, names: tuple[str, ...], numbers: dict[str, float] | None
) -> Compared:
    """One label a text; of a number also the expected value against the teacher's number."""
    # A label that was in held-out domains alone is one more, which is never predicted.
    true = pc.fill_null(pc.index_in(labels, pa.array(names)), len(names)).to_numpy().astype(np.int64)
    best, size = rows.argmax(axis=1), len(names) + 1
    right = true == best
    table = confusion(true, best, size, np.ones(len(true)))
    metrics: dict[str, Metric] = {
        "accuracy": lambda weights: accuracy(right, weights),
        "macro_f1": lambda weights: macro_f1(confusion(true, best, size, weights)),
    }
    if numbers is not None:
        expected = rows / rows.sum(axis=1, keepdims=True) @ np.array([numbers[name] for name in names])
        teacher, predicted = Ranks(values.to_numpy()), Ranks(expected)
        is_high = values.to_numpy() > np.median(values.to_numpy())
        metrics["spearman"] = lambda weights: spearman(teacher, predicted, weights)
        metrics["auc"] = lambda weights: auc(predicted, is_high, weights)
    elif len(names) == 2:
        scores = Ranks(rows[:, 1])
        metrics["auc"] = lambda weights: auc(scores, true == 1, weights)
    else:
        metrics["auc"] = _mean_auc(rows, np.eye(size, dtype=bool)[true][:, : len(names)])
    shown = tuple(tuple(int(count) for count in row[: len(names)]) for row in table[: len(names)])
    return metrics, shown, best, right


def compared_tags(
    rows: NumPyArray, labels: pa.Array, values: pa.Array, names: tuple[str, ...], numbers: dict[str, float] | None
) -> Compared:
    """Any number of labels a text: the best one is right if it is among the teacher's."""
    true = np.zeros((len(rows), len(names) + 1), bool)
    places = pc.fill_null(pc.index_in(labels.flatten(), pa.array(names)), len(names)).to_numpy()
    true[pc.list_parent_indices(labels).to_numpy(), places] = True
    true = true[:, : len(names)]
    best, predicted = rows.argmax(axis=1), rows >= 0.5
    right = true[np.arange(len(rows)), best]

    def tag_f1(weights: NumPyArray) -> float:
        hits, given, found = ((weights[:, None] * each).sum(axis=0) for each in (true & predicted, true, predicted))
        known = given > 0
        return float((2 * hits[known] / (given + found)[known]).mean()) if known.any() else math.nan

    metrics: dict[str, Metric] = {
        "accuracy": lambda weights: accuracy(right, weights),
        "macro_f1": tag_f1,
        "auc": _mean_auc(rows, true),
    }
    return metrics, None, best, right


def _mean_auc(rows: NumPyArray, true: NumPyArray) -> Metric:
    """The mean over labels of each label's AUC against all others; labels that do not occur have none."""
    ranks = [Ranks(rows[:, place]) for place in range(rows.shape[1])]

    def metric(weights: NumPyArray) -> float:
        each = np.array([auc(rank, true[:, place], weights) for place, rank in enumerate(ranks)])
        return float(each[np.isfinite(each)].mean()) if np.isfinite(each).any() else math.nan

    return metric


def minus(first: Metric, second: Metric) -> Metric:
    """The difference of two metrics over the same texts."""
    return lambda weights: first(weights) - second(weights)
