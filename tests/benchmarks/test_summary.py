"""Order of runs, medians, ratios and the line."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.summary import Spread, interleaved, line_fit, ratios


@given(st.integers(1, 5), st.integers(1, 7))
def test_each_round_has_every_name_once_and_begins_with_a_different_one(num_names: int, rounds: int) -> None:
    names = [f"n{i}" for i in range(num_names)]
    order = interleaved(names, rounds=rounds)
    assert Counter(order) == {(turn, name): 1 for turn in range(rounds) for name in names}
    assert [turn for turn, _ in order] == sorted(turn for turn, _ in order)
    firsts = [next(name for turn, name in order if turn == wanted) for wanted in range(rounds)]
    assert all(a != b for a, b in pairwise(firsts)) or num_names == 1


def test_spread() -> None:
    spread = Spread.of([3.0, 1.0, 2.5])
    assert (spread.median, spread.lowest, spread.highest) == (2.5, 1.0, 3.0)
    assert spread.as_dict() == {"median": 2.5, "lowest": 1.0, "highest": 3.0, "values": [3.0, 1.0, 2.5]}
    assert Spread.of([1 / 3]).as_dict()["median"] == 0.333333


def test_ratios_are_those_of_medians_with_the_range_of_rounds() -> None:
    found = ratios({"us": Spread.of([1.0, 2.0, 4.0]), "them": Spread.of([10.0, 30.0, 20.0])}, of="us")
    assert found == {"them": {"ratio": 10.0, "lowest_round": 5.0, "highest_round": 15.0}}


@given(st.floats(-10, 10), st.floats(-5, 5), st.lists(st.integers(0, 1000), min_size=2, max_size=9, unique=True))
def test_a_line_is_fitted_exactly(intercept: float, slope: float, x: list[int]) -> None:
    found = line_fit(x, [intercept + slope * value for value in x])
    assert found[:2] == pytest.approx((intercept, slope), abs=1e-6)


def test_r_squared_is_lower_for_noisy_points() -> None:
    assert line_fit([1, 2, 3], [2, 4, 6])[2] == pytest.approx(1)
    assert line_fit([1, 2, 3], [2, 9, 2])[2] == pytest.approx(0)
    assert line_fit([1, 2, 3], [5, 5, 5])[2] == 1
