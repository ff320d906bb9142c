"""Fitting: attempts that end in NaN are repeated, and models with unusable numbers are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pytest

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.kernel.matrices import Matrix
from colophon.annotators.fasttext.model_file import read_layout
from colophon.annotators.fasttext.training import fitting
from colophon.annotators.fasttext.training.classifier import TrainedClassifier, train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from tests.annotators.conftest import labelled

NAMES = ["high", "low", "Science & Tech"]
SMALL = TrainingSettings(dim=8, buckets=500)


def fail_with_nan(monkeypatch: pytest.MonkeyPatch, *, times: int) -> list[dict[str, Any]]:
    """Make the library's training fail `times` times; returns the arguments of each attempt."""
    train = fasttext.train_supervised
    attempts: list[dict[str, Any]] = []

    def flaky(path: str, **arguments: Any) -> Any:
        attempts.append(dict(arguments))
        if len(attempts) <= times:
            raise RuntimeError("Encountered NaN.")
        return train(path, **arguments)

    monkeypatch.setattr(fasttext, "train_supervised", flaky)
    return attempts


def test_nan_is_repeated_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = fail_with_nan(monkeypatch, times=3)
    texts, labels = labelled(["high", "low"])
    lines: list[str] = []
    trained = train_classifier(texts, labels, output=tmp_path / "m.bin", settings=SMALL, report=lines.append)
    assert [(arguments["seed"], arguments["lr"]) for arguments in attempts] == [
        (0, 0.5),
        (1, 0.5),
        (2, 0.25),
        (3, 0.125),
    ]
    assert lines == [f"attempt {n} of 5 ended in NaN (fastText: Encountered NaN.)" for n in (1, 2, 3)]
    assert trained.card["training"]["attempts"] == 4
    assert trained.card["training"]["settings"]["lr"] == 0.125


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e38])
def test_numbers_that_no_text_can_be_scored_with_are_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    """The library stops only when its loss is NaN, and saves any other numbers."""
    checks: list[Path] = []

    def damaged_at_first(path: Path) -> None:
        if not checks:  # the output matrix is the end of the file
            path.write_bytes(path.read_bytes()[:-4] + np.float32(number).tobytes())
        checks.append(path)
        check(path)

    check = fitting.check_numbers
    monkeypatch.setattr(fitting, "check_numbers", damaged_at_first)
    texts, labels = labelled(["high", "low"])
    lines: list[str] = []
    trained = train_classifier(texts, labels, output=tmp_path / "m.bin", settings=SMALL, report=lines.append)
    assert lines == ["attempt 1 of 5 ended in NaN (fastText: its matrices overflow or hold NaN)"]
    assert trained.card["training"]["attempts"] == 2
    check(tmp_path / "m.bin")


def test_nan_in_every_attempt_is_an_error_that_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with_nan(monkeypatch, times=99)
    texts, labels = labelled(["high", "low"])
    with pytest.raises(AnnotatorError, match=r"ended in NaN 5 times; try a lower lr than 0\.5"):
        train_classifier(texts, labels, output=tmp_path / "m.bin", settings=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_small_models_train_at_the_first_attempt(tmp_path: Path) -> None:
    """With fewer than eleven threads most of these ended in NaN: part of the matrix was not initialised."""
    texts, labels = labelled(["high", "low"])

    def train(number: int) -> TrainedClassifier:
        settings = TrainingSettings(dim=3 + number, buckets=101, seed=number, epoch=2)
        return train_classifier(texts, labels, output=tmp_path / "m.bin", settings=settings)

    assert {train(number).card["training"]["attempts"] for number in range(12)} == {1}


def test_the_smallest_models_hold_no_uninitialised_numbers(tmp_path: Path) -> None:
    """A tenth of 19, rounded down, is one number a thread: eleven threads would leave eight numbers uninitialised."""
    path = tmp_path / "m.bin"
    texts = [f"w{i % 18}" for i in range(72)]  # 18 words and the end of the line
    settings = TrainingSettings(dim=1, word_ngrams=1, epoch=1, lr=1e-6)  # the numbers stay as drawn, between -1 and 1
    for _ in range(5):
        train_classifier(texts, ["even", "odd"] * 36, output=path, settings=settings)
        numbers = Matrix(path=str(path), place=read_layout(path).inputs).rows(slice(None))
        assert numbers.shape == (19, 1)
        assert np.all((numbers != 0) & (np.abs(numbers) <= 1 + 1e-3))


def test_models_that_the_library_cannot_fill_are_refused(tmp_path: Path) -> None:
    settings = TrainingSettings(dim=3, word_ngrams=1, epoch=1)
    with pytest.raises(AnnotatorError, match="3 words with dim 3 are too little to train on"):
        train_classifier(["a", "b"], ["x", "y"], output=tmp_path / "m.bin", settings=settings)
    assert list(tmp_path.iterdir()) == []
