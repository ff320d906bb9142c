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
    """A directory with two projects: `fresh`, and `finished`, whose recipe has been run.

    Tests work on copies in one directory, `project`: the names of partitions depend on the place of the input.
    """
    root = tmp_path_factory.mktemp("projects")
    write_project(root / "fresh")
    here = Path.cwd()
    os.chdir(shutil.copytree(root / "fresh", root / "project"))
    try:
        called = run()
    finally:
        os.chdir(here)
    assert called.code == 0, called.err
    (root / "project").rename(root / "finished")
    return root


@pytest.fixture
def project(templates: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that was never run, as working directory."""
    return _copied(templates, "fresh", monkeypatch)


@pytest.fixture
def finished(templates: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the output of a whole run, as working directory."""
    return _copied(templates, "finished", monkeypatch)


def _copied(templates: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = templates / "project"
    if root.exists():
        shutil.rmtree(root)
    shutil.copytree(templates / name, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="session")
def quality_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small fastText model with the labels `high` and `low`."""
    texts = ["the reader and value of column", "nothing läuft größe über in"] * 30
    settings = TrainingSettings(dim=4, epoch=5, word_ngrams=1, buckets=100, min_count=1)
    path = tmp_path_factory.mktemp("models") / "quality.bin"
    return train_classifier(texts, ["high", "low"] * 30, output=path, settings=settings).path
