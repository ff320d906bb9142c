"""A vocabulary and its reference library, text to ids and back; and the backend of tiktoken.

Text never gives a special id: a string such as `<|endoftext|>` in a document is ordinary characters.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Protocol

import numpy as np
import tiktoken

from colophon.shards.common.errors import TokenizerError
from colophon.shards.tokenizer.engine_specs import EngineSpec, ranks_spec
from colophon.shards.tokenizer.patterns import PATTERNS
from colophon.shards.tokenizer.text_rows import Ids

_WORD_END = re.compile(r"(?<=\S) ")
_PLACEHOLDER = "<|no token of this name|>"


class Backend(Protocol):
    """A vocabulary and its reference library, which defines the ids of a text."""

    name: str
    library: str
    """Name of the reference library."""
    sha256: str
    num_ids: int
    """The largest id + 1, the vocabulary's own special tokens included."""
    first_id: int
    """The offset to add to a fast engine's ids."""
    special: Mapping[str, int]
    """Name to id of the vocabulary's own special tokens; `encode` never gives these ids."""
    is_exact: bool
    """Whether the vocabulary's construction shows that the ids hold every character of any text. False: not known."""
    joins_bytes: bool
    """Whether the text of ids is the bytes of their tokens, one after the other."""
    marked_strings: tuple[str, ...]
    """Strings that are searched in text: added tokens that are not special, and what is replaced or split at."""
    unknown_id: int | None
    """The id that `encode` gives for characters without a token; None if there is none."""

    def encode(self, text: str) -> Ids:
        """Ids of `text`, uint32."""

    def decode(self, ids: list[int]) -> str:
        """Text of ordinary ids; bytes that are not UTF-8 become U+FFFD. KeyError for an id without a token."""

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of one ordinary id. KeyError for an id without a token."""

    def is_ordinary(self, name: str) -> bool:
        """True if `name` is one token of ordinary text."""

    def engine_spec(self) -> EngineSpec:
        """The specification of a fast engine. NoEngineError if no engine supports the vocabulary."""


class TiktokenBackend:
    """A tiktoken encoding. Ordinary ids are ranks + `first_id`: 1,000 in Tekken, whose special ids are 0 to 999."""

    library = "tiktoken"
    joins_bytes = True
    unknown_id: int | None = None
    marked_strings: tuple[str, ...] = ()

    def __init__(self, encoding: tiktoken.Encoding, *, special: Mapping[str, int], first_id: int = 0) -> None:
        # tiktoken's own README extends encodings by these two attributes.
        ranks, pattern = encoding._mergeable_ranks, encoding._pat_str
        self.name = encoding.name
        self.special = special
        self.num_ids = max(max(ranks.values()) + first_id, max(special.values(), default=0)) + 1
        self.sha256 = _ranks_sha256(ranks, pattern=pattern, first_id=first_id)
        self.first_id = first_id
        self.is_exact = pattern in PATTERNS.values()
        self._encoding, self._ranks, self._pattern = encoding, ranks, pattern

    @property
    def ranks(self) -> Mapping[bytes, int]:
        """Token to rank; a token's id is its rank + `first_id`."""
        return self._ranks

    @property
    def pattern(self) -> str:
        """The regular expression that splits text, in the syntax of tiktoken (Rust's fancy-regex)."""
        return self._pattern

    def encode(self, text: str) -> Ids:
        """See `Backend.encode`; `encode_in_parts` cuts texts that are too long for the regular expression."""
        return encode_in_parts(self._encode, text) + np.uint32(self.first_id)

    def decode(self, ids: list[int]) -> str:
        """See `Backend.decode`."""
        return self._encoding.decode_bytes([i - self.first_id for i in ids]).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """See `Backend.token_bytes`."""
        if token_id < self.first_id:
            raise KeyError(token_id)
        return self._encoding.decode_single_token_bytes(token_id - self.first_id)

    def is_ordinary(self, name: str) -> bool:
        """See `Backend.is_ordinary`."""
        return name.encode() in self._ranks

    def engine_spec(self) -> EngineSpec:
        """See `Backend.engine_spec`."""
        return ranks_spec(self._ranks, pattern=self._pattern)

    def _encode(self, text: str) -> Ids:
        # No special token is allowed or disallowed, so their names are ordinary text.
        return self._encoding.encode_to_numpy(text, disallowed_special=())


def encode_in_parts(encode: Callable[[str], Ids], text: str) -> Ids:
    """`encode(text)`; if its regular expression fails, the ids of the text's two halves, recursively.

    Backtracking needs memory for each character, and the libraries stop at a limit: tiktoken 0.14 at about a million
    white-space characters in a row, `tokenizers` 0.23 at ten million. Only then is the text cut: before the first
    space that follows a visible character in the second half, or in the middle if there is none. In no known pattern
    does a token cross such a space, so the ids are those of a library without limits. Cost: at most one failed
    attempt for each cut.

    Raises:
        TokenizerError: the expression fails (ValueError) even on one character.
    """
    try:
        return encode(text)
    except ValueError as error:
        if len(text) < 2:
            raise TokenizerError(f"the tokenizer cannot encode {text!r}: {error}") from error
    middle = len(text) // 2
    found = _WORD_END.search(text, middle)
    cut = found.start() if found else middle
    return np.concatenate([encode_in_parts(encode, text[:cut]), encode_in_parts(encode, text[cut:])])


def build_encoding(name: str, ranks: dict[bytes, int], *, pattern: str) -> tiktoken.Encoding:
    """A tiktoken encoding of `ranks`, after a check that it drops no text.

    Raises:
        TokenizerError: a byte without a token, a repeated rank, or an expression that is invalid or drops characters.
    """
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise TokenizerError(f"no token for {len(missing)} of 256 bytes (the first is 0x{missing[0]:02x})")
    if len(set(ranks.values())) < len(ranks) or not 0 <= min(ranks.values()) <= max(ranks.values()) < 2**31:
        raise TokenizerError("ranks must be distinct and between 0 and 2^31 - 1")
    # Without special tokens tiktoken searches for the empty string at every character: a fifth of the time.
    placeholder = {_PLACEHOLDER: max(ranks.values()) + 1}
    try:
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=placeholder)
    except ValueError as error:
        raise TokenizerError(f"invalid regular expression {pattern!r}: {error}") from error
    _check_pattern(encoding, pattern)
    return encoding


@cache
def byte_characters() -> dict[int, str]:
    """GPT-2's character for each byte: the byte's own if it is printable, else one from U+0100 on."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = sorted(set(range(256)) - set(shown))
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + k) for k, byte in enumerate(hidden)}


def spelling(token: bytes) -> str:
    """A token as GPT-2 and `tokenizers` spell it: `b" a"` gives `Ġa`."""
    characters = byte_characters()
    return "".join(characters[byte] for byte in token)


BYTE_OF_CHAR = {char: byte for byte, char in byte_characters().items()}


def _check_pattern(encoding: tiktoken.Encoding, pattern: str) -> None:
    """Raise if tiktoken drops text with `pattern`: it silently skips what a pattern does not match."""
    probe = "Ab don't 'S1234 ,;!\t x\r\n\n  é漢字ーはกำहिन्दी😀\x00\x7f\u200d\ufeff\u0301_ "
    lost = encoding.decode(encoding.encode_ordinary(probe)) != probe
    if lost:
        raise TokenizerError(
            f"pattern {pattern!r} does not match every character, so text would be dropped. "
            f"Set an expression that matches all, or the name of a known one: {', '.join(PATTERNS)}"
        )


def _ranks_sha256(ranks: Mapping[bytes, int], *, pattern: str, first_id: int) -> str:
    digest = hashlib.sha256(json.dumps([pattern, first_id]).encode())
    by_rank = sorted(ranks.items(), key=lambda item: item[1])
    digest.update("".join(f"{token.hex()} {rank}\n" for token, rank in by_rank).encode())
    return digest.hexdigest()
