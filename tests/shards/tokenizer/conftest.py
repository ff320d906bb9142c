"""Fixtures that the tests of tokenizers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shards.tokenizer.vocabularies import write_trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocabularies")


@pytest.fixture(scope="module")
def small_path(folder: Path) -> Path:
    return write_trained(folder / "small.tiktoken")
