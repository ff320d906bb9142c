"""Distances of documents within and between bins, by their attention to meta tokens.

As in arXiv 2511.21613: a document's vector is the attention of its first 100 text tokens to each meta token in the last
layer (here averaged over heads). If meta tokens encode quality, the vectors of two documents of different quality bins
are farther apart than those of two documents of one bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.groups import groups_of

Metric: TypeAlias = Literal["cosine", "euclidean"]
METRICS: tuple[Metric, ...] = ("cosine", "euclidean")
NUM_TOKENS = 100
"""Text tokens whose attention is in a document's vector."""
_MIN_DOCUMENTS = 5
_NUM_PERMUTATIONS = 999


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Mean distances of pairs of documents."""

    metric: Metric
    within: float
    """Mean distance of pairs in the same bin."""
    between: float
    """Mean distance of pairs in different bins."""
    p_value: float
    """Share of permutations of the documents' bins in which between - within is at least as large, counting the true
    assignment: (1 + number of permutations) / (1 + 999)."""
    pairs: list[list[float]]
    """[num_bins][num_bins]: mean distances of pairs with one document in each."""


@dataclass(frozen=True, kw_only=True)
class BinReport:
    """Attention to meta tokens by the values of a column."""

    column: str
    tokens: int
    """Text tokens whose attention is in a document's vector."""
    bins: dict[str, int]
    """Number of documents of each bin, in the order of their names."""
    excluded: dict[str, int]
    """Documents that were not compared, by reason."""
    distances: list[Distances]
    untrained: list[Distances]
    """The same for the model before its first step: attention depends on the text, so it may separate bins without any
    training."""


def compare_bins(
    vectors: Sequence[NumPyArray | None],
    untrained: Sequence[NumPyArray | None],
    column: pa.Array,
    *,
    column_name: str,
    seed: int,
) -> BinReport:
    """Compare documents' vectors by their bins. Costs about 4 x 999 x n² operations.

    Excluded and counted are documents without a vector (the text is too short), documents without a value, and those in
    bins of fewer than 5 documents. Floating-point numbers form five bins of similar size.

    Args:
        vectors: float32 [d] of each document; None for a text that is too short.
        untrained: the same for the model before its first step.
        column: [n], the bins.
        column_name: its name, for the report.
        seed: random seed of the permutations.

    Raises:
        TrainerError: fewer than two bins remain.
    """
    has_vector = np.array([vector is not None for vector in vectors])
    found, _ = groups_of(column, max_groups=len(column) + 1)
    rows = {group.value: group.rows[has_vector[group.rows]] for group in found if group.value is not None}
    kept = sorted((value for value, documents in rows.items() if len(documents) >= _MIN_DOCUMENTS), key=_sort_key)
    if len(kept) < 2:
        sizes = ", ".join(f"{value} {len(documents)}" for value, documents in rows.items()) or "none"
        raise TrainerError(
            f"column {column_name!r}: fewer than two bins have {_MIN_DOCUMENTS} documents of at least {NUM_TOKENS} "
            f"text tokens: {sizes} (more documents may help)"
        )
    documents = np.concatenate([rows[value] for value in kept])
    bins = np.repeat(np.arange(len(kept)), [len(rows[value]) for value in kept])
    valued = sum(map(len, rows.values()))
    return BinReport(
        column=column_name,
        tokens=NUM_TOKENS,
        bins={value: len(rows[value]) for value in kept},
        excluded={
            "too_short": int((~has_vector).sum()),
            "without_value": int(has_vector.sum()) - valued,
            "in_small_bins": valued - len(documents),
        },
        distances=_all_distances([vectors[i] for i in documents], bins, seed=seed),
        untrained=_all_distances([untrained[i] for i in documents], bins, seed=seed),
    )


def distance_matrix(points: NumPyArray, metric: Metric) -> NumPyArray:
    """float64 [n, n] of float64 [n, d]: Euclidean distances, or 1 - cosine."""
    if metric == "cosine":
        points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-30)
        cosines: NumPyArray = np.clip(1 - points @ points.T, 0, 2)
        return cosines
    squares = (points**2).sum(axis=1)
    distances: NumPyArray = np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))
    return distances


def _all_distances(vectors: Sequence[NumPyArray | None], bins: NumPyArray, *, seed: int) -> list[Distances]:
    points = np.stack([vector for vector in vectors if vector is not None]).astype(np.float64)
    return [_distances(distance_matrix(points, metric), bins, metric, seed=seed) for metric in METRICS]


def _distances(matrix: NumPyArray, bins: NumPyArray, metric: Metric, *, seed: int) -> Distances:
    pairs = _mean_by_bins(matrix, bins)
    within, between = _within_and_between(matrix, bins)
    random = np.random.default_rng(seed)
    as_large = 0
    for _ in range(_NUM_PERMUTATIONS):
        other = _within_and_between(matrix, random.permutation(bins))
        as_large += other[1] - other[0] >= between - within
    return Distances(
        metric=metric,
        within=within,
        between=between,
        p_value=(1 + as_large) / (1 + _NUM_PERMUTATIONS),
        pairs=pairs.tolist(),
    )


def _sums_by_bins(matrix: NumPyArray, bins: NumPyArray) -> tuple[NumPyArray, NumPyArray]:
    """Sums of distances and numbers of ordered pairs of different documents, each [num_bins, num_bins].

    Bins [0, 0, 1] have the numbers [[2, 2], [2, 0]].
    """
    is_in_bin = np.eye(int(bins.max()) + 1)[bins]
    off_diagonal = matrix - np.diag(np.diag(matrix))
    sizes = is_in_bin.sum(axis=0)
    return is_in_bin.T @ off_diagonal @ is_in_bin, np.outer(sizes, sizes) - np.diag(sizes)


def _mean_by_bins(matrix: NumPyArray, bins: NumPyArray) -> NumPyArray:
    sums, pairs = _sums_by_bins(matrix, bins)
    mean: NumPyArray = sums / pairs
    return mean


def _within_and_between(matrix: NumPyArray, bins: NumPyArray) -> tuple[float, float]:
    sums, pairs = _sums_by_bins(matrix, bins)
    within_sum, within_pairs = float(np.trace(sums)), float(np.trace(pairs))
    return within_sum / within_pairs, (float(sums.sum()) - within_sum) / (float(pairs.sum()) - within_pairs)


def _sort_key(value: str) -> tuple[float, str]:
    """A key that sorts numbers by size, before names."""
    try:
        return float(value.partition(" to ")[0]), value
    except ValueError:
        return float("inf"), value
