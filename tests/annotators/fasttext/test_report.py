"""The report of a classifier: scores by hand, aligned text, and nothing to evaluate."""

from __future__ import annotations

from pathlib import Path

import pytest

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.report import evaluate_classifier, format_report
from colophon.annotators.fasttext.text_preparation import TextPreparation


def test_report_by_hand(models: Path) -> None:
    texts = ["theorem proof", "energy cell", "lol omg", "theorem history", "laser chip", "lol", None, "", "proof"]
    labels = ["high", "high", "low", "low", "Science & Tech", "other", "high", "high", None]
    report = evaluate_classifier(models / "softmax.bin", texts, labels, normalize=TextPreparation())
    assert [label.label for label in report.labels] == ["Science & Tech", "high", "low", "other"]
    assert report.confusion == ((1, 0, 0, 0), (0, 2, 0, 0), (0, 1, 1, 0), (0, 0, 1, 0))
    assert (report.num_texts, report.num_left_out) == (6, 3)
    assert report.accuracy == pytest.approx(4 / 6)
    high = report.labels[1]
    assert (high.precision, high.recall, high.f1, high.support) == pytest.approx((2 / 3, 1, 0.8, 2))
    assert (report.labels[3].precision, report.labels[3].recall, report.labels[3].f1) == (0, 0, 0)
    assert report.macro_f1 == pytest.approx((1 + 0.8 + 0.5 + 0) / 4)


def test_report_as_text(models: Path) -> None:
    report = evaluate_classifier(
        models / "softmax.bin", ["theorem proof", "lol", ""], ["high", "low", "low"], normalize=TextPreparation()
    )
    assert format_report(report).splitlines() == [
        "label            precision     recall         F1      texts",
        "Science & Tech       0.000      0.000      0.000          0",
        "high                 1.000      1.000      1.000          1",
        "low                  1.000      1.000      1.000          1",
        "macro mean                                 1.000          2",
        "accuracy                                   1.000",
        "excluded 1 rows without a text or a label",
        "",
        "true, predicted  Science & Tech            high             low",
        "Science & Tech                0               0               0",
        "high                          0               1               0",
        "low                           0               0               1",
    ]


def test_nothing_to_evaluate_on(models: Path) -> None:
    with pytest.raises(AnnotatorError, match="no row has both a text and a label"):
        evaluate_classifier(models / "softmax.bin", ["", None], ["high", "high"], normalize=TextPreparation())
    with pytest.raises(AnnotatorError, match="1 texts have 0 labels"):
        evaluate_classifier(models / "softmax.bin", ["x"], [], normalize=TextPreparation())
