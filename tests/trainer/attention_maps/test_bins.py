from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.attention_maps.bins import compare_bins, distance_matrix
from colophon.trainer.errors import TrainerError


def test_distances_equal_brute_force() -> None:
    points = np.random.default_rng(0).normal(size=(6, 4))
    euclidean, cosine = distance_matrix(points, "euclidean"), distance_matrix(points, "cosine")
    for i, j in np.ndindex(6, 6):
        assert euclidean[i, j] == pytest.approx(math.dist(points[i], points[j]), abs=1e-6)
        norms = np.linalg.norm(points[i]) * np.linalg.norm(points[j])
        assert cosine[i, j] == pytest.approx(1 - points[i] @ points[j] / norms, abs=1e-9)


def test_bins_differ_significantly_only_if_their_vectors_differ() -> None:
    random = np.random.default_rng(0)
    bins = ["low", "high", "mid"] * 12 + ["rare"] * 4 + [None] * 3
    center = {"low": 0, "high": 1, "mid": 2, "rare": 3, None: 4}
    noise = [random.normal(size=5).astype(np.float32) for _ in bins]
    planted: list[NumPyArray | None] = [
        vector + 10 * np.eye(5, dtype=np.float32)[center[name]] for vector, name in zip(noise, bins, strict=True)
    ]
    planted[0] = None
    report = compare_bins(planted, [None, *noise[1:]], pa.array(bins), column_name="quality", seed=0)
    assert report.bins == {"high": 12, "low": 11, "mid": 12}
    assert report.excluded == {"too_short": 1, "without_value": 3, "in_small_bins": 4}
    for found, control in zip(report.distances, report.untrained, strict=True):
        assert found.p_value == 0.001  # 1 / (1 + 999): no permutation is as large
        assert found.between > found.within
        assert control.p_value > 0.05
    kept = [i for i, name in enumerate(bins) if name in report.bins and i]
    points = np.stack([vector for i in kept if (vector := planted[i]) is not None])
    pairs = [(i, j) for i in range(35) for j in range(35) if i != j]
    names = [bins[i] for i in kept]
    within = [math.dist(points[i], points[j]) for i, j in pairs if names[i] == names[j]]
    between = [math.dist(points[i], points[j]) for i, j in pairs if names[i] != names[j]]
    euclidean = report.distances[1]
    assert (euclidean.within, euclidean.between) == pytest.approx((np.mean(within), np.mean(between)), rel=1e-5)
    low_mid = [math.dist(points[i], points[j]) for i, j in pairs if (names[i], names[j]) == ("low", "mid")]
    assert euclidean.pairs[1][2] == pytest.approx(np.mean(low_mid), rel=1e-5)


def test_p_values_of_random_vectors_are_uniform() -> None:
    values = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        vectors = [random.normal(size=3) for _ in range(20)]
        report = compare_bins(vectors, vectors, pa.array(["a", "b"] * 10), column_name="x", seed=seed)
        values.append(report.distances[1].p_value)
    assert 0.3 < float(np.mean(values)) < 0.7
    assert sum(value < 0.1 for value in values) < 7


def test_bins_of_numbers_are_in_ascending_order() -> None:
    vectors = [np.ones(2)] * 60
    bins = compare_bins(vectors, vectors, pa.array([10, 9, 2] * 20, pa.int8()), column_name="x", seed=0).bins
    assert list(bins) == ["2", "9", "10"]


def test_the_error_on_too_few_bins_lists_their_sizes() -> None:
    vectors = [np.ones(2)] * 9
    with pytest.raises(TrainerError, match=r"fewer than two bins have 5 documents .*: a 7, b 2 \(more"):
        compare_bins(vectors, vectors, pa.array(["a"] * 7 + ["b"] * 2), column_name="x", seed=0)
