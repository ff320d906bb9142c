"""Autotune: a search that keeps the given settings and ends in time."""

from __future__ import annotations

from pathlib import Path

import pytest

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.training.autotune import search
from colophon.annotators.fasttext.training.classifier import train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from tests.annotators.conftest import labelled

NAMES = ["high", "low", "Science & Tech"]
SMALL = TrainingSettings(dim=8, buckets=500)


def test_autotune_keeps_given_settings(tmp_path: Path) -> None:
    texts, labels = labelled(["high", "low"], num_texts=100)
    settings = TrainingSettings(autotune_seconds=1, dim=7, loss="softmax", buckets=50)
    lines: list[str] = []
    output = tmp_path / "m.bin"
    card = train_classifier(texts, labels, output=output, settings=settings, report=lines.append).card
    assert card["sizes"]["dim"] == 7
    assert card["training"]["rows"] == 100
    assert lines[0].startswith("autotune: start ")
    assert lines[-1].startswith("autotune: best 1.0000 with ")
    with pytest.raises(AnnotatorError, match="no row has both a text and a label"):
        train_classifier(texts, labels, output=output, settings=settings, validation=([], []))


def test_search_returns_the_best_within_its_time() -> None:
    now = [0.0]
    tried: list[TrainingSettings] = []

    def score(settings: TrainingSettings) -> float | None:
        tried.append(settings)
        now[0] += 1.0
        return None if len(tried) == 2 else settings.lr

    start = TrainingSettings(autotune_seconds=20, dim=20, epoch=4)
    best = search(start, score=score, report=lambda line: None, clock=lambda: now[0])
    assert tried[0] == start
    assert 3 < len(tried) <= 20
    assert best.lr == max(settings.lr for place, settings in enumerate(tried) if place != 1)
    assert {(settings.dim, settings.epoch) for settings in tried} == {(20, 4)}
    assert len({settings.model_dump_json() for settings in tried}) == len(tried)
    with pytest.raises(AnnotatorError, match="every training run ended in NaN"):
        search(TrainingSettings(autotune_seconds=1), score=lambda _: None, report=lambda line: None)
