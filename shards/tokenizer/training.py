"""Train a byte-level BPE vocabulary and save it as a `.tiktoken` file that tiktoken loads.

`tokenizers` counts and merges; tiktoken applies the result. They differ in one point: the first merges pairs in the
order in which training found them, the second always merges the pair whose joined token has the lowest rank. The file
holds tokens and ranks only, so the ids of a text are by definition those that tiktoken gives; a token that training
reached by two different pairs stands in it once, with the rank of the first.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from colophon.shards.common.errors import TokenizerError
from colophon.shards.tokenizer.backends import BYTE_OF_CHAR, build_encoding
from colophon.shards.tokenizer.files import sidecar_path
from colophon.shards.tokenizer.patterns import PATTERNS, find_pattern

_MAX_CHARACTERS = 10_000
"""Longer texts are trained on in pieces, cut between words where there are any. Training takes time with the square
of a word's length, and the expression engine of `tokenizers` gives up on matches of millions of characters."""

_POSSESSIVE_INTERVAL = re.compile(r"\{\d*,?\d*\}\+")


@dataclass(frozen=True)
class TrainedVocabulary:
    """What training made."""

    path: Path
    pattern: str
    """The regular expression itself; it also stands in `<path>.json`."""
    num_tokens: int
    """Tokens in the file, the 256 bytes among them; special tokens come on top when it is loaded."""
    vocabulary_size: int
    """Tokens asked for. A small corpus has fewer pairs to merge, and `num_tokens` is then below it."""
    num_texts: int
    text_bytes: int
    sha256: str
    """Of the file."""


def train_tokenizer(
    texts: Iterable[str | pa.Array | pa.ChunkedArray],
    *,
    vocabulary_size: int,
    output: Path,
    pattern: str = "o200k_base",
) -> TrainedVocabulary:
    """Train on `texts`, each a string or an Arrow array of strings (nulls count as nothing), and write two files.

    Equal texts in equal order give equal bytes, on any number of threads. Memory grows with the number of distinct
    words, not with the text.

    Args:
        texts: read once.
        vocabulary_size: tokens in the file, at least 256; special tokens are not among them.
        output: the `.tiktoken` file; its pattern goes to `<output>.json`, where `TokenizerConfig(path=...)` finds it.
        pattern: a regular expression or the name of a known one. The default keeps combining marks with their letters,
            which `gpt2` and `cl100k_base` cut (Hindi, Thai and Tamil words fall apart there), and splits camelCase.

    Raises:
        TokenizerError: a size below 256, a name without .tiktoken, a bad pattern, no text at all.
    """
    expression = _checked_pattern(pattern, vocabulary_size=vocabulary_size, output=output)
    counted = _Counted(texts)
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
        raise TokenizerError(f"no text to train a tokenizer on ({counted.num_texts} texts, all empty)")
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
    """The pre-tokenizer of `tokenizers` that cuts text as tiktoken does with `expression`.

    Raises:
        TokenizerError: an expression that the engine of `tokenizers` (Oniguruma) refuses or reads in another way.
    """
    if expression == PATTERNS["cl100k_base"]:
        # Oniguruma reads {1,3}+ as one or more times {1,3}. At the end of an alternative, where nothing follows that
        # could ask for a shorter match, the possessive sign says nothing and may go.
        expression = expression.replace("{1,3}+", "{1,3}")
    if found := _POSSESSIVE_INTERVAL.search(expression):
        raise TokenizerError(
            f"pattern {expression!r}: {found.group()} means another thing in the training library; "
            "write an atomic group, (?>...{n,m}), which means the same in both"
        )
    try:
        return pre_tokenizers.Split(Regex(expression), "isolated")
    except Exception as error:  # `tokenizers` raises bare Exceptions
        raise TokenizerError(f"the training library does not take the pattern {expression!r}: {error}") from error


class _Counted:
    """Texts in lists of strings, counted as they pass."""

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
    """The text in order, each piece up to `_MAX_CHARACTERS` long and, unless it has no such place, ending at a word's
    end: before a space that follows a visible character, which no known pattern has inside a token."""
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
        raise TokenizerError(f"a vocabulary holds the 256 bytes at least, got a size of {vocabulary_size}")
    if output.suffix != ".tiktoken":
        raise TokenizerError(f"the name of a vocabulary ends in .tiktoken, got {output}")
    expression = find_pattern(pattern)
    build_encoding(output.stem, {bytes([byte]): byte for byte in range(256)}, pattern=expression)
    return expression


def _tokens(vocabulary: dict[str, int]) -> list[bytes]:
    """Tokens as bytes in the order of their ids, the single bytes first (by value: their order says nothing)."""
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    merged = [bytes(BYTE_OF_CHAR[char] for char in token) for token in ordered if len(token) > 1]
    return [bytes([byte]) for byte in range(256)] + merged


def _write(result: TrainedVocabulary, data: bytes) -> None:
    """The sidecar first: a vocabulary is never visible without its pattern."""
    sidecar = {"pattern": result.pattern, "num_tokens": result.num_tokens, "sha256": result.sha256}
    sidecar |= {"num_texts": result.num_texts, "text_bytes": result.text_bytes}
    result.path.parent.mkdir(parents=True, exist_ok=True)
    _write_file(sidecar_path(result.path), (json.dumps(sidecar, indent=2) + "\n").encode())
    _write_file(result.path, data)


def _write_file(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
