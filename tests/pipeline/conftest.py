"""Small projects in a working directory of their own; see `tests.pipeline.project`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from colophon.annotators.fasttext.training.classifier import train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from tests.pipeline.project import run, write_project


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync takes most of a small run's time and changes nothing that a test could see without cutting the power."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two projects: `fresh`, and `finished`, whose recipe has been run."""
    root = tmp_path_factory.mktemp("projects")
    write_project(root / "fresh")
    shutil.copytree(root / "fresh", root / "finished")
    here = Path.cwd()
    os.chdir(root / "finished")
    try:
        called = run()
    finally:
        os.chdir(here)
    assert called.code == 0, called.err
    return root


@pytest.fixture
def project(templates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that was never run, as working directory."""
    return _copied(templates / "fresh", tmp_path, monkeypatch)


@pytest.fixture
def finished(templates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the output of a whole run, as working directory."""
    return _copied(templates / "finished", tmp_path, monkeypatch)


def _copied(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(template, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="session")
def quality_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small fastText model with the labels `high` and `low`."""
    texts = ["the reader and value of column", "nothing läuft größe über in"] * 30
    settings = TrainingSettings(dim=4, epoch=5, word_ngrams=1, buckets=100, min_count=1)
    path = tmp_path_factory.mktemp("models") / "quality.bin"
    return train_classifier(texts, ["high", "low"] * 30, output=path, settings=settings).path
