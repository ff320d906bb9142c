from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pyarrow as pa

from colophon.trainer.evaluation.groups import by_value, groups_of


def test_groups_by_value() -> None:
    column = pa.array(["b", "a", None, "b", "c", "a", "b"])
    groups, left_out = groups_of(column)
    assert [(g.value, g.rows.tolist()) for g in groups] == [("b", [0, 3, 6]), ("a", [1, 5]), ("c", [4]), (None, [2])]
    assert left_out == []
    groups, left_out = groups_of(column, max_groups=2)
    assert [[g.value for g in some] for some in (groups, left_out)] == [["b", "a"], ["c", None]]
    groups, left_out = groups_of(column, max_groups=2, min_documents=3)
    assert [[g.value for g in some] for some in (groups, left_out)] == [["b"], ["a", "c", None]]


def test_numbers_are_in_ascending_order_and_labels_by_size() -> None:
    for values, expected in (
        (pa.array([10, 9, 9, 2, None, 2, 2], pa.int16()), ["2", "9", "10", None]),
        (pa.array(["b", "a", "a", None, None, None]), [None, "a", "b"]),
        (pa.array([0.5, 0.5, None]), ["0.5", None]),
    ):
        groups, _ = groups_of(values)
        assert [group.value for group in by_value(groups, values)] == expected


def test_scores_form_five_groups_in_ascending_order() -> None:
    values = np.random.default_rng(0).permutation(100) / 100
    groups, left_out = groups_of(pa.array([*values, None, math.nan], pa.float32()))
    assert [len(g.rows) for g in groups] == [2, 20, 20, 20, 20, 20]
    assert [g.value for g in groups[:3]] == [None, "0 to 0.198", "0.198 to 0.396"]
    assert left_out == []
    for low, high in pairwise(groups[1:]):
        assert values[low.rows].max() < values[high.rows].min()
    assert [(g.value, len(g.rows)) for g in groups_of(pa.array([0.5, 0.5]))[0]] == [("0.5", 2)]
    assert [(g.value, len(g.rows)) for g in groups_of(pa.nulls(3, pa.float32()))[0]] == [(None, 3)]
