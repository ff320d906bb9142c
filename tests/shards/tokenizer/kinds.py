"""A `tokenizer.json` of every kind that is common, small: which keep text, which change it, which lose it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.shards.tokenizer.vocabularies import CORPUS

BYTE_NAMES = [f"<0x{byte:02X}>" for byte in range(256)]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SENTENCEPIECE = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)


def byte_level(
    *, normalizer: Any = None, splitter: bool = True, decoder: bool = True, prefix_space: bool = False
) -> Tokenizer:
    """GPT-2, Llama 3, Qwen; GPT-NeoX with NFC."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=350, initial_alphabet=alphabet, show_progress=False, special_tokens=[])
    tokenizer.train_from_iterator(CORPUS, trainer)
    content = json.loads(tokenizer.to_str())
    content["pre_tokenizer"] = content["pre_tokenizer"] if splitter else None
    tokenizer = Tokenizer.from_str(json.dumps(content))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if decoder:
        tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def with_added(token: AddedToken) -> Tokenizer:
    """Byte-level with a token that is found in text."""
    tokenizer = byte_level()
    tokenizer.add_tokens([token])
    return tokenizer


def byte_fallback(*, metaspace: bool) -> Tokenizer:
    """Llama 2 and Gemma (a normalizer), Mistral (a pre-tokenizer)."""
    names = ["<unk>", *BYTE_NAMES, "▁", *_LETTERS]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = _SENTENCEPIECE
    return tokenizer


def trained(model: Any, trainer: Any, *, splitter: Any, **parts: Any) -> Tokenizer:
    """A model trained on English, as users train them."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = splitter
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator([CORPUS[0], "It's 1234567 o'clock"], trainer)
    return tokenizer


def unigram(*, fallback: bool, normalizer: Any = None) -> Tokenizer:
    """T5; with byte fallback as several Japanese models have it."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), *((letter, -5.0) for letter in _LETTERS)]
    pieces += [(name, -9.0) for name in BYTE_NAMES] if fallback else []
    tokenizer = Tokenizer(models.Unigram(pieces, 0, fallback))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = _SENTENCEPIECE if fallback else decoders.Metaspace()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return tokenizer


def word_piece() -> Tokenizer:
    """BERT."""
    trainer = trainers.WordPieceTrainer(vocab_size=200, show_progress=False, special_tokens=["[UNK]"])
    parts = {"normalizer": normalizers.BertNormalizer(), "decoder": decoders.WordPiece()}
    return trained(models.WordPiece(unk_token="[UNK]"), trainer, splitter=pre_tokenizers.BertPreTokenizer(), **parts)


def word_level() -> Tokenizer:
    """Words by white space."""
    trainer = trainers.WordLevelTrainer(vocab_size=200, show_progress=False, special_tokens=["[UNK]"])
    return trained(models.WordLevel(unk_token="[UNK]"), trainer, splitter=pre_tokenizers.WhitespaceSplit())


def bpe(unknown: str | None = None) -> Tokenizer:
    """The first example of the documentation of `tokenizers`: no bytes, and white space is dropped."""
    special = [] if unknown is None else [unknown]
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, special_tokens=special)
    return trained(models.BPE(unk_token=unknown), trainer, splitter=pre_tokenizers.Whitespace())


KEPT: dict[str, tuple[Callable[[], Tokenizer], set[str], bool]] = {
    "byte-level": (byte_level, set(), True),
    "byte-level, no decoder": (lambda: byte_level(decoder=False), set(), True),
    "byte-level, a space before": (lambda: byte_level(prefix_space=True), {"first space"}, True),
    "byte-level, added token": (lambda: with_added(AddedToken("<tool>")), set(), True),
    "byte-level, NFC": (lambda: byte_level(normalizer=normalizers.NFC()), {"canonical"}, False),
    "byte-level, NFD": (lambda: byte_level(normalizer=normalizers.NFD()), {"canonical"}, False),
    "byte fallback": (lambda: byte_fallback(metaspace=False), {"metaspace"}, True),
    "byte fallback, metaspace": (lambda: byte_fallback(metaspace=True), {"metaspace", "first space"}, True),
    "unigram, byte fallback": (lambda: unigram(fallback=True), {"metaspace", "first space", "byte name"}, False),
}
"""Vocabularies that lose nothing: a builder, the notes, and whether this follows from their construction."""

LOST: dict[str, tuple[Callable[[], Tokenizer], str]] = {
    "BPE": (bpe, "loses: '中' U+4E2D, 'я' U+044F, "),
    "BPE, unknown token": (lambda: bpe("<unk>"), "loses: '中' U+4E2D, 'я' U+044F, "),
    "byte-level, no splitter": (lambda: byte_level(splitter=False), "loses: '中' U+4E2D"),
    "byte-level, NFKC": (lambda: byte_level(normalizer=normalizers.NFKC()), "'½' U+00BD"),
    "byte-level, lower case": (lambda: byte_level(normalizer=normalizers.Lowercase()), "loses: 'A' U+0041"),
    "byte-level, accents": (
        lambda: byte_level(normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
        "loses: 'é' U+00E9",
    ),
    "byte-level, strip": (lambda: byte_level(normalizer=normalizers.Strip()), "changes: '  ' to ''"),
    "byte-level, spaces joined": (
        lambda: byte_level(normalizer=normalizers.Replace(Regex(" {2,}"), " ")),
        "changes: '   ' to ' ', 'a  b' to 'a b'",
    ),
    "byte-level, replaced": (
        lambda: byte_level(normalizer=normalizers.Replace("foo", "bar")),
        "'x foo y' to 'x bar y'",
    ),
    "added token, spaces": (lambda: with_added(AddedToken("<tool>", lstrip=True)), "'x <tool> y' to 'x<tool> y'"),
    "unigram": (lambda: unigram(fallback=False), "loses: '中' U+4E2D, 'я' U+044F, "),
    "T5": (lambda: unigram(fallback=False, normalizer=normalizers.NFKC()), "loses: '中' U+4E2D"),
    "word piece": (word_piece, "loses: '中' U+4E2D, 'я' U+044F, "),
    "word level": (word_level, "loses: '中' U+4E2D, 'я' U+044F, "),
}
"""Vocabularies that lose text: a builder, and a part of the description."""
