"""Differences between JSON values are one line a leaf."""

from __future__ import annotations

from typing import Any

import pytest

from colophon.shards.common.differences import differences


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 2, "c": 2}}, ["a.b: 1 -> 2"]),
        ({"a": 1}, {"b": 2}, ["a: 1 -> None", "b: None -> 2"]),
        ({"a": None}, {}, []),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a: [1, 2] -> [1, 3]"]),
        ({"a": {"b": 1}}, {"a": 5}, ["a: {'b': 1} -> 5"]),
        ({1: "x"}, {1: "y"}, ["1: 'x' -> 'y'"]),
        (1, 2, [": 1 -> 2"]),
    ],
)
def test_one_line_for_each_leaf_that_differs(old: Any, new: Any, lines: list[str]) -> None:
    assert differences(old, new) == lines


def test_a_long_value_is_shortened() -> None:
    (line,) = differences({"a": "x" * 100}, {"a": ""})
    assert line == f"a: {repr('x' * 100)[:57]}... -> ''"
    (line,) = differences({"k" * 5000: 1}, {})
    assert line == f"{'k' * 117}...: 1 -> None"
