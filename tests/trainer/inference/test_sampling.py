from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colophon.shards.tokenizer.tokenizer import TokenizerConfig, load_tokenizer
from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.sampling import Sampler, SamplingSettings, sample_texts, sampling_probabilities
from tests.pipeline.project import write_tokenizer


def test_top_k_and_top_p_keep_the_likeliest_tokens() -> None:
    probabilities = np.array([0.1, 0.4, 0.05, 0.25, 0.2])
    logits = np.log(probabilities).astype(np.float32)

    def left(**settings: Any) -> list[float]:
        return np.round(sampling_probabilities(logits, SamplingSettings(temperature=1.0, **settings)), 6).tolist()

    assert left() == [0.1, 0.4, 0.05, 0.25, 0.2]
    assert left(top_k=2) == [0, round(0.4 / 0.65, 6), 0, round(0.25 / 0.65, 6), 0]
    assert left(top_k=9) == left()
    assert left(top_p=0.6) == left(top_k=2)
    assert left(top_p=0.7) == left(top_k=3)
    assert left(top_p=0.01) == [0, 1, 0, 0, 0]
    assert left(top_p=1.0) == left()
    assert left(top_k=3, top_p=0.7) == left(top_k=2)  # of the tokens that top_k keeps
    sharper = sampling_probabilities(logits, SamplingSettings(temperature=0.5))
    np.testing.assert_allclose(sharper, probabilities**2 / (probabilities**2).sum(), rtol=1e-5)


def test_tokens_are_drawn_with_their_probabilities() -> None:
    probabilities = np.array([0.1, 0.6, 0.0, 0.3])
    logits = np.array([*np.log(probabilities[:2]), -np.inf, np.log(0.3)], np.float32)
    sampler = Sampler(SamplingSettings(temperature=1.0), sample=0)
    counts = np.bincount([sampler.draw(logits) for _ in range(4000)], minlength=4)
    np.testing.assert_allclose(counts / 4000, probabilities, atol=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"temperature": -1.0}, "temperature must be 0 or more, got -1.0"),
        ({"temperature": math.nan}, "temperature must be 0 or more, got nan"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, got 1.5"),
        ({"guidance": math.inf}, "guidance must be a finite number, got inf"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
    ],
)
def test_sampling_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainerError) as raised:
        SamplingSettings(**settings)
    assert str(raised.value) == message


def test_characters_spread_over_tokens_are_emitted_whole(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "small.tiktoken")
    tokenizer = load_tokenizer(TokenizerConfig(path=str(tmp_path / "small.tiktoken"), pattern="gpt2"))
    for text in ["größe 東京 🙂 the τέλος", "a�b", "", "🙂"]:
        ids = list(text.encode())  # this vocabulary begins with the 256 bytes
        pieces = list(sample_texts([[None, token] for token in ids], sample=1, decode=tokenizer.decode))
        assert "".join(pieces) == text
        if "�" not in text:
            assert not any("�" in piece for piece in pieces)
            assert sum(map(bool, pieces)) == len(text)  # each character when it is complete
    cut = list("ab🙂".encode())[:-1]
    assert list(sample_texts([[token] for token in cut], sample=0, decode=tokenizer.decode)) == [*"ab", "", "", "", "�"]
    broken = [*b"a\xff\xfeb\xe6", *"c東".encode()]
    pieces = list(sample_texts([[token] for token in broken], sample=0, decode=tokenizer.decode))
    assert "".join(pieces) == bytes(broken).decode("utf-8", "replace")


def test_text_ids_exclude_special_ids(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "small.tiktoken")
    tokenizer = load_tokenizer(TokenizerConfig(path=str(tmp_path / "small.tiktoken"), pattern="gpt2"))
    assert np.flatnonzero(tokenizer.text_ids()).tolist() == list(range(tokenizer.num_base_ids))
    assert len(tokenizer.text_ids()) == tokenizer.num_ids == tokenizer.num_base_ids + 10
    tekken = load_tokenizer(TokenizerConfig(name="tekken")).text_ids()
    assert np.flatnonzero(~tekken).tolist() == list(range(1000))  # its special ids come first
