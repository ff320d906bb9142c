from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colophon.trainer.probes.scores import ScoreDraws


def brute_scores(truth: list[int], predicted: list[int], classes: set[int]) -> tuple[float, float]:
    f1 = []
    for label in classes:
        hits = sum(t == p == label for t, p in zip(truth, predicted, strict=True))
        either = truth.count(label) + predicted.count(label)
        f1.append(2 * hits / either if either else 0)
    return sum(t == p for t, p in zip(truth, predicted, strict=True)) / len(truth), sum(f1) / len(f1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(10, 14)), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_scores_equal_brute_force_in_the_sample_and_in_every_draw(rows: list[tuple[int, int, int]]) -> None:
    truth, predicted, groups = (np.array(column) for column in zip(*rows, strict=True))
    draws = ScoreDraws(truth, groups, num_classes=4, seed=3)
    names = np.unique(groups)
    counts = np.random.default_rng(3).multinomial(len(names), np.full(len(names), 1 / len(names)), size=1000)
    for i, weights in ((0, np.ones(len(names), int)), (1, counts[0]), (1000, counts[999])):
        drawn = [row for name, times in zip(names, weights, strict=True) for row in rows if row[2] == name] * 1
        drawn = [row for row in drawn for _ in range(int(weights[np.flatnonzero(names == row[2])[0]]))]
        expected = brute_scores([row[0] for row in drawn], [row[1] for row in drawn], set(truth.tolist()))
        assert (draws.accuracy(predicted)[i], draws.macro_f1(predicted)[i]) == pytest.approx(expected)


def test_a_constant_prediction_scores_no_more_in_a_draw_without_the_small_class() -> None:
    truth, groups = np.array([0] * 35 + [1] * 2), np.concatenate([np.arange(35), [40, 40]])
    draws = ScoreDraws(truth, groups, num_classes=2, seed=0)
    assert (draws.macro_f1(truth)[1:] == 0.5).any()  # drawn without the small class, whose F1 is then 0
    found = draws.estimate(draws.macro_f1(np.zeros(37, np.int64)))
    assert found.value == pytest.approx(70 / 72 / 2)
    assert found.high == 0.5


def test_an_interval_contains_the_score_and_is_wider_for_similar_documents() -> None:
    random = np.random.default_rng(0)
    truth, hit_groups = np.zeros(400, np.int64), random.random(20) < 0.5
    groups = np.repeat(np.arange(20), 20)
    predicted = np.where(hit_groups[groups], 0, 1)
    width = {}
    for name, of in (("documents", np.arange(400)), ("groups", groups)):
        draws = ScoreDraws(truth, of, num_classes=2, seed=0)
        found = draws.estimate(draws.accuracy(predicted))
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value < found.high
        width[name] = found.high - found.low
    assert width["groups"] > 3 * width["documents"]
    alone = ScoreDraws(truth, np.zeros(400), num_classes=2, seed=0)
    assert alone.estimate(alone.accuracy(predicted)).low is None
