"""Ids compared with those of tiktoken, mistral-common and `tokenizers`, also for texts on which these fail."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from colophon.shards.tokenizer.backends import build_encoding, encode_in_parts
from colophon.shards.tokenizer.patterns import PATTERNS
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, TokenizerError, load_tokenizer
from tests.shards.tokenizer.vocabularies import (
    CORPUS,
    SPECIAL_STRINGS,
    edit_json,
    read_encoding,
    write_byte_level_json,
    write_trained,
)

MILLION = 1_000_000
LONG_TEXTS = {
    "one line": "it's a very long line of 12345 words, ünï and 漢字 " * 100_000,
    "one letter": "a" * MILLION,
    "spaces": " " * (MILLION - 100_000),  # at a million tiktoken itself fails with two of the patterns
    "newlines": "\n" * MILLION,
    "punctuation": "-" * MILLION,
    "special strings": "<|endoftext|>" * 50_000,
}


@pytest.fixture(scope="module", params=list(PATTERNS))
def vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("vocabularies")
    return write_trained(folder / "small.tiktoken", pattern=request.param), request.param


def ids_of(tokenizer: Tokenizer, text: str) -> np.ndarray:
    ids: np.ndarray = tokenizer.encode_batch(pa.array([text], pa.large_string())).values.to_numpy()
    return ids


@pytest.mark.parametrize("kind", LONG_TEXTS)
def test_long_texts_have_the_ids_of_tiktoken(vocabulary: tuple[Path, str], kind: str) -> None:
    path, pattern = vocabulary
    tokenizer = load_tokenizer(TokenizerConfig(path=str(path)))
    ids = ids_of(tokenizer, LONG_TEXTS[kind])
    assert ids.tolist() == read_encoding(path, pattern=pattern).encode_ordinary(LONG_TEXTS[kind])


def test_texts_on_which_tiktoken_fails_are_cut_between_words(vocabulary: tuple[Path, str]) -> None:
    path, pattern = vocabulary
    tokenizer, reference = load_tokenizer(TokenizerConfig(path=str(path))), read_encoding(path, pattern=pattern)
    before, spaces, after = "the lazy dog it's " * 1000, " " * 2 * MILLION, "x and the lazy dog" + " minds" * 1000
    with pytest.raises(ValueError, match="Regex error while tokenizing"):
        reference.encode_to_numpy(before + spaces + after, disallowed_special=())
    ids = ids_of(tokenizer, before + spaces + after)
    assert tokenizer.decode(ids) == before + spaces + after
    head = reference.encode_ordinary(before.rstrip())
    tail = reference.encode_ordinary(after[1:])
    assert ids[: len(head)].tolist() == head
    assert ids[-len(tail) :].tolist() == tail


def limited(limit: int) -> Any:
    """An encoder (one id a character) that fails on more than `limit` characters, and the texts it encoded."""

    def encode(text: str) -> np.ndarray:
        if len(text) > limit:
            raise ValueError("stack overflow")
        calls.append(text)
        return np.array([ord(char) for char in text], dtype=np.uint32)

    calls: list[str] = []
    return encode, calls


@given(text=st.text(st.sampled_from("ab \n"), max_size=200), limit=st.integers(1, 50))
def test_parts_join_to_the_text(text: str, limit: int) -> None:
    encode, parts = limited(limit)
    assert "".join(map(chr, encode_in_parts(encode, text))) == text == "".join(parts)
    if len(text) <= limit:
        assert parts == [text]


def test_parts_end_before_the_space_of_a_word() -> None:
    encode, parts = limited(12)
    encode_in_parts(encode, "one two  three four five")
    assert parts == ["one two", "  three", " four five"]


def test_an_expression_that_fails_on_one_character_is_an_error() -> None:
    encode, _ = limited(0)
    with pytest.raises(TokenizerError, match="cannot encode 'a': stack overflow"):
        encode_in_parts(encode, "aaaa")


def test_a_panic_of_tokenizers_is_handled_the_same_way(tmp_path: Path) -> None:
    slow = {"type": "Split", "pattern": {"Regex": r"(a+)+b|.|\n"}, "behavior": "Isolated", "invert": False}
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    path = write_byte_level_json(tmp_path / "slow.json")
    edit_json(path, pre_tokenizer={"type": "Sequence", "pretokenizers": [slow, bytes_only]})
    tokenizer = load_tokenizer(TokenizerConfig(path=str(path)))
    text = "see " + "a" * 30 + " there"
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_dropout_of_a_json_is_off(tmp_path: Path) -> None:
    path = write_byte_level_json(tmp_path / "dropout.json")
    sure = load_tokenizer(TokenizerConfig(path=str(path)))
    model = json.loads(path.read_text())["model"]
    random = load_tokenizer(TokenizerConfig(path=str(edit_json(path, model={**model, "dropout": 0.9}))))
    assert ids_of(random, CORPUS[0] * 20).tolist() == ids_of(sure, CORPUS[0] * 20).tolist()


@pytest.fixture(scope="module")
def mistral() -> Tekkenizer:
    spec = find_spec("mistral_common")
    assert spec is not None and spec.origin is not None
    return Tekkenizer.from_file(Path(spec.origin).parent / "data" / "tekken_240718.json")


@pytest.fixture(scope="module")
def tekken() -> Tokenizer:
    return load_tokenizer(TokenizerConfig(name="tekken"))


mixed = st.lists(st.one_of(st.sampled_from([*CORPUS, *SPECIAL_STRINGS]), st.text(max_size=20)), max_size=6)


@given(parts=mixed)
def test_tekken_has_the_ids_of_mistral_common(tekken: Tokenizer, mistral: Tekkenizer, parts: list[str]) -> None:
    text = "".join(parts)
    assert ids_of(tekken, text).tolist() == mistral.encode(text, bos=False, eos=False)


def test_tekken_has_the_special_tokens_of_mistral(mistral: Tekkenizer) -> None:
    tokenizer = load_tokenizer(TokenizerConfig(name="tekken", special_slots="added"), num_meta_tokens=0)
    assert tokenizer.num_base_ids == mistral.n_words
    assert (tokenizer.special.bos, tokenizer.special.eos, tokenizer.special.pad) == (
        mistral.bos_id,
        mistral.eos_id,
        mistral.pad_id,
    )
    assert tokenizer.token_strings(range(1000)) == [mistral.id_to_piece(i) for i in range(1000)]


def test_patterns_are_those_of_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    openai_public = pytest.importorskip("tiktoken_ext.openai_public")
    for loader in ("load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks"):
        monkeypatch.setattr(openai_public, loader, lambda *args, **kwargs: {})
    for name in ("gpt2", "cl100k_base", "o200k_base"):
        assert PATTERNS[name] == getattr(openai_public, name)()["pat_str"]


def test_the_pattern_of_tekken_is_the_one_in_its_file(mistral: Tekkenizer) -> None:
    assert PATTERNS["tekken"] == mistral._model._pat_str


def test_a_placeholder_changes_no_ids() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)}
    plain = tiktoken.Encoding("plain", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})
    built = build_encoding("built", ranks, pattern=PATTERNS["gpt2"])
    for text in (*CORPUS, *SPECIAL_STRINGS):
        assert built.encode_to_numpy(text, disallowed_special=()).tolist() == plain.encode_ordinary(text)


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({bytes([byte]): byte for byte in range(255)}, r"no token for 1 of 256 bytes \(the first is 0xff\)"),
        ({bytes([byte]): 0 for byte in range(256)}, "ranks must be distinct"),
        ({bytes([byte]): byte - 1 for byte in range(256)}, "between 0 and"),
        ({bytes([byte]): 2**31 - byte for byte in range(256)}, "between 0 and"),
    ],
)
def test_ranks_with_which_tiktoken_would_fail_are_refused(ranks: dict[bytes, int], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        build_encoding("bad", ranks, pattern=PATTERNS["gpt2"])


@pytest.mark.parametrize("pattern", [r"\w+", r"\S+| ", r"[^\n]+", "gtp2"])
def test_patterns_that_drop_text_are_refused(pattern: str) -> None:
    ranks = {bytes([byte]): byte for byte in range(256)}
    assert build_encoding("good", ranks, pattern=rf"{pattern}|[\s\S]").encode_ordinary(" a\n") == [32, 97, 10]
    with pytest.raises(TokenizerError, match="does not match every character"):
        build_encoding("bad", ranks, pattern=pattern)
