"""A small tokenizer for all tests of attention."""

from __future__ import annotations

import pytest

from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from tests.pipeline.project import write_tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "small.tiktoken"
    write_tokenizer(path)
    return load_tokenizer(TokenizerConfig(path=str(path), pattern="gpt2"), num_meta_tokens=3)
