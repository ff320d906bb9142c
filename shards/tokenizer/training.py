"""Training of a byte-level BPE vocabulary, saved as a `.tiktoken` file that tiktoken loads.

`tokenizers` trains; tiktoken encodes. They differ in one point: `tokenizers` merges pairs in the order in which
training found them, tiktoken always merges the pair whose joined token has the lowest rank. The file holds tokens and
ranks only, so tiktoken defines the ids of a text. A token that training reached by two different pairs is in the file
once, with the rank of the first.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from colophon.shards.common.durable import replace_text, replaced_file
from colophon.shards.common.errors import TokenizerError
from colophon.shards.tokenizer.backends import BYTE_OF_CHAR, build_encoding
from colophon.shards.tokenizer.files import sidecar_path
from colophon.shards.tokenizer.patterns import PATTERNS, find_pattern

_MAX_CHARACTERS = 10_000
"""Longer texts are cut into pieces, between words where possible. Training time grows with the square of a word's
length, and the regular expressions of `tokenizers` fail on matches of millions of characters."""

_POSSESSIVE_INTERVAL = re.compile(r"\{\d*,?\d*\}\+")


@dataclass(frozen=True)
class TrainedVocabulary:
    """The result of training."""

    path: Path
    pattern: str
    """The regular expression itself; `<path>.json` holds it too."""
    num_tokens: int
    """Tokens in the file, the 256 bytes included. Special tokens are added when the file is loaded."""
    vocabulary_size: int
    """Tokens asked for. A small corpus has fewer pairs to merge; `num_tokens` is then smaller."""
    num_texts: int
    text_bytes: int
    sha256: str
    """sha256 of the file."""


def train_tokenizer(
    texts: Iterable[str | pa.Array | pa.ChunkedArray],
    *,
    vocabulary_size: int,
    output: Path,
    pattern: str = "o200k_base",
) -> TrainedVocabulary:
    """Train a vocabulary on `texts` and write it and its pattern to two files.

    Equal texts in equal order give equal bytes, on any number of threads. Memory grows with the number of distinct
    words, not with the text.

    Args:
        texts: strings or Arrow arrays of strings, read once; nulls are skipped.
        vocabulary_size: tokens in the file, at least 256, without special tokens.
        output: the `.tiktoken` file; its pattern goes to `<output>.json`, where `TokenizerConfig(path=...)` finds it.
        pattern: a regular expression or the name of a known one. The default splits camelCase and keeps combining
            marks with their letters; `gpt2` and `cl100k_base` cut them off and split Hindi, Thai and Tamil words.

    Raises:
        TokenizerError: a size below 256, an output that does not end in .tiktoken, an invalid pattern, or no text.
    """
    expression = _checked_pattern(pattern, vocabulary_size=vocabulary_size, output=output)
    counted = _CountedTexts(texts)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [splitter(expression), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[],
    )
    tokenizer.train_from_iterator(counted, trainer)
    if not counted.text_bytes:
        raise TokenizerError(f"no text to train a tokenizer on: {counted.num_texts} texts, all empty")
    tokens = _tokens(tokenizer.get_vocab(with_added_tokens=False))
    data = b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))
    result = TrainedVocabulary(
        path=output,
        pattern=expression,
        num_tokens=len(tokens),
        vocabulary_size=vocabulary_size,
        num_texts=counted.num_texts,
        text_bytes=counted.text_bytes,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    _write(result, data)
    return result


def splitter(expression: str) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer of `tokenizers` that splits text as tiktoken does with `expression`.

    Raises:
        TokenizerError: the engine of `tokenizers` (Oniguruma) refuses the expression or reads it differently.
    """
    if expression == PATTERNS["cl100k_base"]:
        # Oniguruma reads {1,3}+ as {1,3} once or more. At the end of an alternative nothing follows that could force
        # a shorter match, so the possessive sign has no effect and is removed.
        expression = expression.replace("{1,3}+", "{1,3}")
    if found := _POSSESSIVE_INTERVAL.search(expression):
        raise TokenizerError(
            f"pattern {expression!r}: {found.group()} has a different meaning in the training library. "
            "Write an atomic group, (?>...{n,m}), which has the same meaning in both"
        )
    try:
        return pre_tokenizers.Split(Regex(expression), "isolated")
    except Exception as error:  # `tokenizers` raises bare Exceptions
        raise TokenizerError(f"the training library rejects the pattern {expression!r}: {error}") from error


class _CountedTexts:
    """Iterates over lists of strings and counts them."""

    def __init__(self, texts: Iterable[str | pa.Array | pa.ChunkedArray]) -> None:
        self.num_texts = 0
        self.text_bytes = 0
        self._texts = texts

    def __iter__(self) -> Iterator[list[str]]:
        for batch in self._texts:
            strings = [batch] if isinstance(batch, str) else [text for text in batch.to_pylist() if text is not None]
            self.num_texts += len(strings)
            self.text_bytes += sum(len(text.encode()) for text in strings)
            yield [piece for text in strings for piece in _pieces(text)]


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of at most `_MAX_CHARACTERS`.

    A piece ends before a space that follows a visible character, if it has one: no known pattern has a token across
    such a place.
    """
    start = 0
    while len(text) - start > _MAX_CHARACTERS:
        window = text[start : start + _MAX_CHARACTERS]
        cut = window.rfind(" ", 1)
        while cut > 0 and window[cut - 1].isspace():
            cut = window.rfind(" ", 1, cut)
        cut = cut if cut > 0 else _MAX_CHARACTERS
        yield window[:cut]
        start += cut
    yield text[start:]


def _checked_pattern(pattern: str, *, vocabulary_size: int, output: Path) -> str:
    if vocabulary_size < 256:
        raise TokenizerError(f"vocabulary_size must be at least 256, one token a byte, got {vocabulary_size}")
    if output.suffix != ".tiktoken":
        raise TokenizerError(f"the name of a vocabulary must end in .tiktoken, got {output}")
    expression = find_pattern(pattern)
    build_encoding(output.stem, {bytes([byte]): byte for byte in range(256)}, pattern=expression)
    return expression


def _tokens(vocabulary: dict[str, int]) -> list[bytes]:
    """Tokens as bytes: the single bytes by value, then the merged tokens in the order of their ids."""
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    merged = [bytes(BYTE_OF_CHAR[char] for char in token) for token in ordered if len(token) > 1]
    return [bytes([byte]) for byte in range(256)] + merged


def _write(result: TrainedVocabulary, data: bytes) -> None:
    """Write both files, the sidecar first: a vocabulary is never visible without its pattern."""
    sidecar = {"pattern": result.pattern, "num_tokens": result.num_tokens, "sha256": result.sha256}
    sidecar |= {"num_texts": result.num_texts, "text_bytes": result.text_bytes}
    replace_text(sidecar_path(result.path), json.dumps(sidecar, indent=2) + "\n")
    with replaced_file(result.path) as temporary:
        temporary.write_bytes(data)
