"""Both formats of a vocabulary give the same ids."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from benchmarks.vocabulary import VocabularyError, both_formats, huggingface_json, read_ranks
from colophon.shards.tokenizer.patterns import PATTERNS

_WORDS = ["the", " the", "in", " in", "ing", " a", "an", "and", " and", "  ", "\n\n", "ü", "th", "he", "nd", " t"]
_TOKENS = [*(bytes([byte]) for byte in range(256)), *(word.encode() for word in _WORDS)]
_RANKS = {token: rank for rank, token in enumerate(_TOKENS)}
_REFERENCE = tiktoken.Encoding("t", pat_str=PATTERNS["gpt2"], mergeable_ranks=_RANKS, special_tokens={})
_HUGGINGFACE = Tokenizer.from_str(json.dumps(huggingface_json(_RANKS)))


def write(path: Path) -> Path:
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in _RANKS.items()))
    return path


@given(st.lists(st.sampled_from([*_WORDS, "x", "7", "'s", "🙂", "\t", "\r\n", "\x00"])) | st.text())
def test_ids_are_equal(parts: list[str] | str) -> None:
    text = "".join(parts)
    assert _HUGGINGFACE.encode(text).ids == _REFERENCE.encode(text, disallowed_special=())


def test_ranks_are_read_in_order(tmp_path: Path) -> None:
    assert list(read_ranks(write(tmp_path / "v.tiktoken")).items()) == list(_RANKS.items())


def test_the_vocabulary_has_both_paths(tmp_path: Path) -> None:
    vocabulary = both_formats(write(tmp_path / "v.tiktoken"), texts=["the thing"], output=tmp_path / "t.json")
    assert vocabulary.num_ids == len(_RANKS)
    assert Tokenizer.from_file(vocabulary.huggingface).encode("the").ids == [_RANKS[b"the"]]


def test_a_difference_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other: dict[str, Any] = huggingface_json(_RANKS)
    other["model"] |= {"merges": [], "ignore_merges": False}
    monkeypatch.setattr("benchmarks.vocabulary.huggingface_json", lambda ranks: other)
    with pytest.raises(VocabularyError, match="different ids"):
        both_formats(write(tmp_path / "v.tiktoken"), texts=["the thing"], output=tmp_path / "t.json")
