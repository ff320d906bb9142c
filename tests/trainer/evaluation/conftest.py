"""Outputs that several modules of tests read: a small project with trained models, and a run of counting texts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from tests.pipeline.project import RECIPE, colophon, run, write_project
from tests.trainer.counting import write_counting_run
from tests.trainer.evaluation.small_project import LAYOUTS
from tests.trainer.runs import TINY_MODEL


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a small project. No document is cut, and no metadata is dropped."""
    root = tmp_path_factory.mktemp("project")
    write_project(root)
    recipe = RECIPE.replace("sequence_length = 64", 'sequence_length = 300\nmethod = "best_fit"')
    recipe = recipe.replace("max_metadata_tokens", "dropout = 0.0\nmax_metadata_tokens")
    tiny = "\n".join(f"{key} = {value}" for key, value in TINY_MODEL.items())
    for layout in LAYOUTS:
        recipe += f'[train.{layout}]\nlayout = "{layout}"\nsteps = 2\nbatch_size = 2\ndevice = "cpu"\n'
        recipe += f'validation_output = "same"\n[train.{layout}.model]\n{tiny}\n'
    (root / "recipe.toml").write_text(recipe, encoding="utf-8")
    with contextlib.chdir(root) if hasattr(contextlib, "chdir") else _directory(root):
        assert run().code == 0
        assert run("--set", "output.path=same").code == 0  # validation needs documents of a different run
        for layout in LAYOUTS:
            called = colophon("train", "recipe.toml", "--name", layout)
            assert called.code == 0, called.err
    return root


@contextlib.contextmanager
def _directory(path: Path) -> Any:  # contextlib.chdir is new in Python 3.11
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as working directory."""
    monkeypatch.chdir(project)
    return project


@pytest.fixture(scope="session")
def tokenizer(project: Path) -> Tokenizer:
    return load_tokenizer(TokenizerConfig(path=str(project / "small.tiktoken"), pattern="gpt2"))


@pytest.fixture(scope="session")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_counting_run(tmp_path_factory.mktemp("counting"))
