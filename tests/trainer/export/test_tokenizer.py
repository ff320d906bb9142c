"""Laws of an exported vocabulary: the ids of training for every text, special ids with their names, bos first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer

from colophon.shards.tokenizer.hard_texts import hard_texts
from colophon.shards.tokenizer.patterns import PATTERNS
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from colophon.trainer.errors import TrainerError
from colophon.trainer.export.tokenizer import export_tokenizer, oniguruma
from tests.shards.tokenizer.vocabularies import write_byte_level_json, write_ranks, write_trained, write_unigram_json
from tests.trainer.models import small_tokenizer

OVERLAPPING = (
    b"aa",
    b"aaa",
    b"aaaa",
    b"ba",
    b"aab",
    b"baa",
    b"abaa",
    b"  ",
    b"    ",
    b" a",
    b"\xc3\xa9",
    b"12",
    b"123",
)


def ids_as_exported(content: str, texts: list[str]) -> list[list[int]]:
    exported = HuggingFaceTokenizer.from_str(content)
    exported.encode_special_tokens = True
    return [encoding.ids for encoding in exported.encode_batch(texts, add_special_tokens=False)]


def of_ranks(path: Path, pattern: str) -> Tokenizer:
    return load_tokenizer(TokenizerConfig(path=str(write_ranks(path, OVERLAPPING)), pattern=pattern))


def trained(path: Path, pattern: str) -> Tokenizer:
    return load_tokenizer(TokenizerConfig(path=str(write_trained(path, pattern=pattern))))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("make", [of_ranks, trained])
def test_hard_texts_have_the_ids_of_training_and_decode_to_themselves(
    tmp_path: Path, pattern: str, make: Callable[[Path, str], Tokenizer]
) -> None:
    tokenizer = make(tmp_path / "small.tiktoken", pattern)
    texts = [*hard_texts(tokenizer.backend), *tokenizer.special_names.values(), "a" * 17, "ab" * 9 + "aaaaba"]
    exported = export_tokenizer(tokenizer)
    found = ids_as_exported(exported.content, texts)
    assert found == tokenizer.encode_batch(pa.array(texts)).to_pylist()
    decoded = HuggingFaceTokenizer.from_str(exported.content).decode_batch(found, skip_special_tokens=False)
    assert decoded == texts
    assert exported.different == ()


def test_special_ids_have_their_names_and_bos_is_first(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(tmp_path)
    found = HuggingFaceTokenizer.from_str(export_tokenizer(tokenizer).content)
    special = tokenizer.special
    everything = [special.bos, special.eos, special.pad, special.boc, special.eoc, *special.meta]
    assert [found.token_to_id(tokenizer.special_names[i]) for i in everything] == everything
    assert found.get_vocab_size() == tokenizer.num_ids
    mixed = [special.bos, special.boc, *b"url", special.eoc, *"Gr\u00fc\u00df".encode(), *special.meta, special.eos]
    assert found.decode(mixed, skip_special_tokens=False) == tokenizer.decode(mixed)
    assert found.decode(mixed) == "urlGr\u00fc\u00df"
    assert found.encode("a").ids == [special.bos, *b"a"]


def test_a_vocabulary_whose_ranks_have_gaps_keeps_its_ids(tmp_path: Path) -> None:
    path = write_ranks(tmp_path / "gaps.tiktoken", [])
    path.write_bytes(path.read_bytes() + b"dGg= 300\n")  # "th"
    tokenizer = load_tokenizer(TokenizerConfig(path=str(path), pattern="gpt2"))
    content = export_tokenizer(tokenizer).content
    assert ids_as_exported(content, ["the"]) == [[300, ord("e")]]
    assert HuggingFaceTokenizer.from_str(content).token_to_id("<|endoftext|>") == tokenizer.special.eos == 301


@pytest.mark.parametrize("slots", ["added", "reserved"])
def test_a_tokenizer_json_keeps_its_ids_and_gets_the_special_tokens_of_layouts(tmp_path: Path, slots: str) -> None:
    path = write_byte_level_json(tmp_path / "tokenizer.json")
    config = TokenizerConfig.model_validate({"path": str(path), "special_slots": slots})
    if slots == "reserved":  # one free slot, for boc
        content = json.loads(path.read_text())
        last = content["added_tokens"][-1]["id"]
        content["added_tokens"] += [
            {**content["added_tokens"][0], "id": last + k, "content": f"<|reserved_special_token_{k}|>"}
            for k in range(1, 7)
        ]
        path.write_text(json.dumps(content))
    tokenizer = load_tokenizer(config)
    exported = export_tokenizer(tokenizer)
    texts = [*hard_texts(tokenizer.backend), "a <plain> b", "<|context_begin|>", "<|reserved_special_token_0|>"]
    assert ids_as_exported(exported.content, texts) == tokenizer.encode_batch(pa.array(texts)).to_pylist()
    found = HuggingFaceTokenizer.from_str(exported.content)
    assert found.token_to_id("<|context_begin|>") == tokenizer.special.boc
    assert (found.token_to_id("<|reserved_special_token_0|>") is None) == (slots == "reserved")
    assert found.encode("a" * 100).ids[0] == tokenizer.special.bos
    assert len(found.encode("a b c d e f").ids) > 3, "truncation and padding are off"


def test_texts_with_names_of_special_tokens_that_differ_are_listed(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(TokenizerConfig(path=str(write_unigram_json(tmp_path / "tokenizer.json"))))
    exported = export_tokenizer(tokenizer)
    assert 0 < len(exported.different) < exported.num_texts
    assert all("<s>" in text or "</s>" in text for text in exported.different)


def test_a_pattern_that_tokenizers_interprets_differently_is_refused(tmp_path: Path) -> None:
    # A possessive count of a group is not translated: Oniguruma reads it as a repeated repetition.
    pattern = r"(?:\p{N}|-){1,3}+|[^\p{N}-]+"
    path = write_ranks(tmp_path / "odd.tiktoken", [b"1111", b"2222", b"9999"])
    with pytest.raises(TrainerError, match="different ids than in training"):
        export_tokenizer(load_tokenizer(TokenizerConfig(path=str(path), pattern=pattern)))


def test_a_special_token_spelled_like_an_ordinary_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="'\u0120a' is spelled like an ordinary token"):
        export_tokenizer(small_tokenizer(tmp_path, boc="\u0120a"))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$", r"(?>\p{N}{1,3})| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++\z"),
        (r"[$a]{2}+b\$$", r"(?>[$a]{2})b\$\z"),
        (r"[^\]{$]{1,}+.{2}+", r"(?>[^\]{$]{1,})(?>.{2})"),
    ],
)
def test_possessive_counts_and_ends_are_translated(pattern: str, expected: str) -> None:
    assert oniguruma(pattern) == expected


def test_tekken_is_the_same_vocabulary() -> None:
    tokenizer = load_tokenizer(TokenizerConfig(name="tekken"))
    content = export_tokenizer(tokenizer).content
    found = HuggingFaceTokenizer.from_str(content)
    assert found.token_to_id("<|context_begin|>") == 61
    assert found.token_to_id("<s>") == tokenizer.special.bos == 1
    assert found.token_to_id("<SPECIAL_61>") is None
    assert found.get_vocab_size() == tokenizer.num_ids


@pytest.mark.shared
@pytest.mark.parametrize("vocabulary", ["gpt2", "tekken"])
def test_real_text_has_the_ids_of_training(shared_data: Path, vocabulary: str) -> None:
    gpt2 = TokenizerConfig(path=str(shared_data / "vocab" / "gpt2.tiktoken"), pattern="gpt2")
    tokenizer = load_tokenizer(gpt2 if vocabulary == "gpt2" else TokenizerConfig(name="tekken"))
    paths = [*sorted((shared_data / "multilingual").glob("*.parquet")), shared_data / "web" / "validation.parquet"]
    texts = pa.chunked_array(
        [pq.read_table(path, columns=["text"])["text"].slice(0, 40).combine_chunks() for path in paths]
    )
    found = ids_as_exported(export_tokenizer(tokenizer).content, texts.to_pylist())
    assert found == tokenizer.encode_batch(texts).to_pylist()
    assert np.concatenate(found).size > 100_000
