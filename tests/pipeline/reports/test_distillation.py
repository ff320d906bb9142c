"""The tables of `colophon distill`: a matrix shows the labels of held-out texts, whatever else the classifier knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from colophon.pipeline.classifiers.agreement import Interval
from colophon.pipeline.classifiers.distillation import Agreement, Distilled
from colophon.pipeline.reports.distillation import agreement_tables, recipe_lines
from colophon.pipeline.reports.tables import plain_rows


def distilled(counts: list[list[int]], labels: list[str]) -> Distilled:
    agreement = Agreement(
        kind="pooled",
        texts=9,
        unscored=0,
        untaught=0,
        domains=1,
        metrics={"accuracy": Interval(value=0.5, low=0.4, high=0.6), "auc": Interval(value=0.5, low=None, high=None)},
        differences={},
        labels=tuple(labels),
        confusion=tuple(map(tuple, counts)),
        calibration=(None,) * 10,
        calibration_error=0.1,
        most_wrong=(),
    )
    card = {"distilled": {"numbers": None}}
    model = Path("a.safetensors")
    return Distilled(path=model, card=card, agreements=(agreement,), texts=9, annotator={"type": "pooled"})


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[3, 0, 1], [0, 0, 0], [0, 0, 5]], [("teacher", "a", "c"), ("a", "5", "0"), ("c", "1", "3")]),
        # No text is b, but some are taken for it; all c are missed.
        ([[0, 0, 3], [0, 0, 0], [0, 1, 5]], [("teacher", "a", "b", "c"), ("a", "5", "1", "0"), ("c", "3", "0", "0")]),
    ],
)
def test_labels_without_a_held_out_text_have_no_line(counts: list[list[int]], expected: list[tuple[str, ...]]) -> None:
    metrics, confusion, _ = agreement_tables(distilled(counts, ["c", "b", "a"]))
    assert plain_rows(confusion) == expected
    assert plain_rows(metrics)[1] == ("pooled", "0.500 [0.400, 0.600]", "0.500", "0.100")


def test_many_labels_are_lines_that_name_the_most_frequent_predictions() -> None:
    counts = np.zeros((12, 12), int)
    counts[3], counts[7, 7] = np.arange(12), 99
    _, confusion, _ = agreement_tables(distilled(counts.tolist(), list("abcdefghijkl")))
    assert plain_rows(confusion)[1:] == [
        ("h", "99", "1.000", "h 99"),
        ("d", "66", "0.045", "l 11, k 10, j 9, i 8, …"),
    ]


@pytest.mark.parametrize(
    ("name", "table", "key"),
    [("edu-score", "edu-score_pooled", "edu-score"), ("meta.edu", '"meta.edu_pooled"', '"meta.edu"')],
)
def test_keys_are_quoted_where_toml_needs_it(name: str, table: str, key: str) -> None:
    lines = recipe_lines(distilled([[1]], ["a"]), name=name).splitlines()
    assert lines[0] == f"[annotators.{table}]"
    assert lines[-1] == f"heads = {{ {key} = {{ score = {{ argmax = true }} }} }}"
