"""Text that vocabularies lose: the probe over every kind, the counts of a batch, and the law that both state."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer

from colophon.shards.tokenizer.losses import changes
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from tests.shards.tokenizer.kinds import KEPT, LOST, bpe, byte_level, word_piece
from tests.shards.tokenizer.vocabularies import CORPUS, load, write_trained


def saved(tokenizer: HuggingFaceTokenizer, folder: Path) -> Tokenizer:
    path = folder / "kind.json"
    tokenizer.save(str(path))
    return load(path)


@pytest.mark.parametrize("kind", KEPT)
def test_vocabularies_that_keep_text_are_found_to_do_so(kind: str, tmp_path: Path) -> None:
    build, notes, is_exact = KEPT[kind]
    tokenizer = saved(build(), tmp_path)
    losses = tokenizer.find_losses()
    assert (losses.any, losses.describe(), set(losses.notes)) == (False, "", notes)
    assert tokenizer.backend.is_exact == is_exact
    assert ("losses" in tokenizer.settings) != is_exact


@pytest.mark.parametrize("kind", LOST)
def test_vocabularies_that_lose_text_are_named_with_examples(kind: str, tmp_path: Path) -> None:
    build, part = LOST[kind]
    tokenizer = saved(build(), tmp_path)
    losses = tokenizer.find_losses()
    assert losses.any
    assert part in losses.describe()
    assert not tokenizer.backend.is_exact


def test_vocabularies_of_tiktoken_lose_nothing(tmp_path: Path) -> None:
    path = write_trained(tmp_path / "own.tiktoken")
    for config in (TokenizerConfig(name="tekken"), TokenizerConfig(path=str(path))):
        assert not load_tokenizer(config).find_losses().any
    # U+0085 alone is left out, which the check of patterns at loading does not try
    partly = load(path, pattern=r"[^\x{85}]+")
    assert partly.find_losses().describe() == "loses: '\\x85' U+0085"
    counts = partly.count_losses(pa.array(["a\x85b", "ab"]), partly.encode_batch(pa.array(["a\x85b", "ab"])))
    assert (counts["documents_lossy"], counts["characters_lost"]) == (1, 1)


@pytest.mark.parametrize("kind", [kind for kind, (_, _, is_exact) in KEPT.items() if is_exact])
def test_ids_of_exact_vocabularies_hold_any_text(kind: str, tmp_path: Path) -> None:
    backend = saved(KEPT[kind][0](), tmp_path).backend

    @given(st.text() | st.lists(st.sampled_from([*CORPUS, " ", "  ", "<0x41>", "<unk>", "<tool>", "é"])).map("".join))
    def check(text: str) -> None:
        assert changes(text, backend.decode(backend.encode(text).tolist())) is not None

    check()


def test_the_losses_of_a_batch_are_counted(tmp_path: Path) -> None:
    texts = pa.array(["the lazy dog", "the 中文 dog", None, "", "lazy\n\ndog", "中 я"])
    tokenizer = saved(word_piece(), tmp_path)
    counts = tokenizer.count_losses(texts, tokenizer.encode_batch(texts))
    # each Chinese character is a word of its own for BERT; line feeds become one space
    assert counts == {"documents_lossy": 3, "documents_normalized": 0, "characters_lost": 6, "tokens_unknown": 4}
    without_unknown = saved(bpe(), tmp_path)
    counts = without_unknown.count_losses(texts, without_unknown.encode_batch(texts))
    assert (counts["documents_lossy"], counts["tokens_unknown"]) == (3, 0)


def test_canonically_equivalent_documents_are_counted_apart(tmp_path: Path) -> None:
    build, _, _ = KEPT["byte-level, NFC"]
    tokenizer = saved(build(), tmp_path)
    texts = pa.array(["e\u0301", "\u00e9", "\u212b"])
    counts = tokenizer.count_losses(texts, tokenizer.encode_batch(texts))
    assert counts == {"documents_lossy": 0, "documents_normalized": 2, "characters_lost": 0, "tokens_unknown": 0}


def test_exact_vocabularies_count_nothing(tmp_path: Path) -> None:
    tokenizer = saved(byte_level(), tmp_path)
    assert tokenizer.count_losses(pa.array(["中"]), tokenizer.encode_batch(pa.array(["中"]))) == {}
