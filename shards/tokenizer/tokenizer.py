"""The tokenizer: texts to ids, and the special ids that layouts put around them.

Text is encoded without bos and eos, and never gives a special id, whatever a document contains.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from colophon.shards.common.errors import TokenizerError
from colophon.shards.common.paths import absolute_path, local_path
from colophon.shards.schema import SpecialIds
from colophon.shards.tokenizer.backends import Backend
from colophon.shards.tokenizer.encoders import ColumnEncoder, FastEncoder, ReferenceEncoder, choose_encoder
from colophon.shards.tokenizer.engine_specs import NoEngineError
from colophon.shards.tokenizer.files import load_file, load_named
from colophon.shards.tokenizer.hub import HUB_PREFIX, find_in_hub
from colophon.shards.tokenizer.losses import Losses, count_losses, find_losses
from colophon.shards.tokenizer.special_tokens import Assignment, Slots, assign_special_ids
from colophon.shards.tokenizer.text_rows import IdSink, Positions, text_chunks

__all__ = ["SpecialIds", "Tokenizer", "TokenizerConfig", "TokenizerError", "load_tokenizer"]


class TokenizerConfig(BaseModel):
    """`[tokenizer]`: a `name` or a `path`, and the names of the special tokens; missing ones are added.

    Example:

        [tokenizer]
        path = "models/own.tiktoken"
        eos = "<|endoftext|>"
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    """`gpt2`, `cl100k_base`, `o200k_base` (tiktoken's, downloaded at first use), `tekken` (Mistral-Nemo's,
    installed), or `hf:org/model` with an optional `@revision` (of the Hugging Face Hub, downloaded at first use)."""
    path: str | None = None
    """A `.tiktoken` file, a Hugging Face `tokenizer.json` or a `tekken.json`."""
    pattern: str | None = None
    """For a `.tiktoken` file: the regular expression that splits text, or the name of a known one (gpt2, cl100k_base,
    o200k_base, tekken). Default: the pattern that `train-tokenizer` wrote beside the file."""
    special_slots: Slots | None = None
    """Ids of boc, eoc and the meta tokens: "added" after the last id, or "reserved" in slots that the vocabulary keeps
    free. Default: "reserved" in tekken (61 and 62, as in the paper's code, then 63, ...), "added" elsewhere."""
    bos: str | None = None
    """Name of the token before a document. Default: the vocabulary's conventional name, or a new token."""
    eos: str | None = None
    """Name of the token after a document."""
    pad: str | None = None
    """Name of the token that fills sequences."""
    boc: str | None = None
    """Name of the token before metadata. Default: `<|context_begin|>`."""
    eoc: str | None = None
    """Name of the token after metadata. Default: `<|context_end|>`."""
    allow_lossy: bool = False
    """Whether a vocabulary that loses text is accepted: one without a token for a character, or one that lower-cases.
    The losses are counted for each document."""
    rewritten_by: tuple[str, ...] = Field(default=(), max_length=10)
    """Annotators of the recipe whose replaced text is encoded, one after the other, in place of the document's: of the
    built-in ones `pii`."""

    @model_serializer(mode="wrap")
    def _without_empty_list(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Tokenizers in the manifests of earlier versions do not have the key."""
        settings: dict[str, Any] = handler(self)
        if not self.rewritten_by:
            settings.pop("rewritten_by", None)
        return settings

    @model_validator(mode="after")
    def _check(self) -> TokenizerConfig:
        if (self.name is None) == (self.path is None):
            raise ValueError("set exactly one of name and path")
        if self.pattern is not None and self.path is None and not self.is_in_hub:
            raise ValueError("pattern is for a .tiktoken file; a named tokenizer has its own")
        if any(getattr(self, role) == "" for role in ("bos", "eos", "pad", "boc", "eoc")):
            raise ValueError("the name of a special token must not be empty")
        return self

    @property
    def is_in_hub(self) -> bool:
        """Whether the name is that of a repository of the Hugging Face Hub."""
        return self.name is not None and self.name.startswith(HUB_PREFIX)


class Tokenizer:
    """A vocabulary with its special ids. A worker builds its own with `load_tokenizer`, not from a pickle."""

    name: str
    """The vocabulary's name in reports."""
    sha256: str
    """sha256 of ranks or merges and pattern; the file's path and added tokens do not matter."""
    num_base_ids: int
    """The largest id of the vocabulary itself + 1."""
    num_ids: int
    """The largest id + 1, added tokens included: the rows that an embedding needs."""
    dtype: np.dtype[Any]
    """uint16 if the largest id fits, added tokens included; else uint32."""
    special: SpecialIds
    config: TokenizerConfig
    """Settings that load the same vocabulary in a process elsewhere: with an absolute path, or a commit of the Hub."""

    def __init__(self, backend: Backend, assignment: Assignment, config: TokenizerConfig) -> None:
        self.config = config
        self.name, self.sha256, self.num_base_ids = backend.name, backend.sha256, backend.num_ids
        self.num_ids, self.special = assignment.num_ids, assignment.special
        self.dtype = np.dtype(np.uint16 if self.num_ids - 1 <= np.iinfo(np.uint16).max else np.uint32)
        self._backend, self._names = backend, assignment.names

    @property
    def backend(self) -> Backend:
        """The vocabulary without the added tokens, and its reference library."""
        return self._backend

    @property
    def special_names(self) -> Mapping[int, str]:
        """Id to name of all special tokens: the vocabulary's own and the added ones."""
        return self._names

    @property
    def engine(self) -> str:
        """The library that encodes, human-readable; loads the engine. Ids are the same with each.

        `gigatoken 0.10.0, ids checked against tiktoken` or `tiktoken: no fast engine supports its pattern`, say.
        """
        return self._encoder.engine

    @property
    def is_fast(self) -> bool:
        """Whether the fast engine encodes; loads the engine."""
        return isinstance(self._encoder, FastEncoder)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings on which the ids of plain text depend, as JSON, for fingerprints."""
        counted = {} if self._backend.is_exact else {"losses": "counted"}  # files of older versions have no counts
        return {"name": self.name, "sha256": self.sha256, "dtype": self.dtype.name, **counted}

    def encode_batch(self, texts: pa.Array | pa.ChunkedArray) -> pa.ListArray:
        """Ids of each text: list<`dtype`>, one row for each text. A null gives an empty list.

        Args:
            texts: string, large_string or string_view, plain or dictionary-encoded, or all null.

        Raises:
            TokenizerError: the column has a different type, a text is not UTF-8, or the texts have 2^31 or more
                tokens, too many for the offsets of one list array.
        """
        sink = IdSink(self.dtype, expected=texts.nbytes // 3)
        counts = [self._encode(chunk, sink) for chunk in text_chunks(texts)]
        return sink.lists(np.concatenate([np.empty(0, np.int64), *counts]))

    def find_losses(self) -> Losses:
        """The text that the vocabulary loses, see `shards.tokenizer.losses`."""
        return find_losses(self._backend)

    def count_losses(self, texts: pa.Array | pa.ChunkedArray, input_ids: pa.ListArray) -> dict[str, int]:
        """The losses in a batch and its ids, see `shards.tokenizer.losses`; empty if the vocabulary can have none."""
        return count_losses(self._backend, texts, input_ids)

    def decode(self, ids: npt.ArrayLike) -> str:
        """Text of `ids`, special tokens by name; bytes that are not UTF-8 become U+FFFD.

        Raises:
            TokenizerError: an id without a token.
        """
        runs = groupby(self._checked(ids), key=self._names.__contains__)
        return "".join(self._decode_run(list(run), is_special=is_special) for is_special, run in runs)

    def token_strings(self, ids: npt.ArrayLike) -> list[str]:
        """One printable string for each id, for inspection: control characters and incomplete UTF-8 are escaped.

        Raises:
            TokenizerError: an id without a token.
        """
        return [self._token_string(token_id) for token_id in self._checked(ids)]

    def readable_strings(self, ids: npt.ArrayLike) -> list[str]:
        """As `token_strings`, but a character that spans several tokens is whole, in the string of the last of them.

        The strings of the tokens before are empty: joined, the strings are the text. Only bytes that are not UTF-8 are
        escaped.

        Raises:
            TokenizerError: an id without a token.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        strings: list[str] = []
        for token_id in self._checked(ids):
            if token_id in self._names:
                rest = decoder.decode(b"", final=True)
                strings = [*strings[:-1], strings[-1] + rest] if rest else strings
                strings.append(self._names[token_id])
            else:
                strings.append(_printable(decoder.decode(self._bytes(token_id))))
        rest = decoder.decode(b"", final=True)
        return [*strings[:-1], strings[-1] + rest] if rest else strings

    def text_ids(self) -> npt.NDArray[np.bool_]:
        """bool [num_ids]: whether ordinary text can give the id. The other ids are special or without a token."""
        return np.array([self._is_text(token_id) for token_id in range(self.num_ids)])

    @cached_property
    def _encoder(self) -> ColumnEncoder:
        # Loaded at first use: it takes some tenths of a second, and plans, layouts and decoding do not need it.
        return choose_encoder(self._backend)

    def _encode(self, texts: pa.Array, sink: IdSink) -> Positions:
        """Append the ids of all texts; return each text's number of ids."""
        size = sink.size
        try:
            return self._encoder.encode_batch(texts, sink)
        except NoEngineError as error:
            # The engine failed: the reference encodes this batch again, and all batches after it.
            self._encoder = ReferenceEncoder(self._backend, reason=str(error))
            sink.cut(size)
            return self._encoder.encode_batch(texts, sink)

    def _checked(self, ids: npt.ArrayLike) -> list[int]:
        numbers: list[int] = np.asarray(ids, dtype=np.int64).ravel().tolist()
        for token_id in numbers:
            if token_id not in self._names and not 0 <= token_id < self.num_base_ids:
                raise self._missing_token(token_id)
        return numbers

    def _decode_run(self, ids: list[int], *, is_special: bool) -> str:
        if is_special:
            return "".join(self._names[token_id] for token_id in ids)
        try:
            return self._backend.decode(ids)
        except KeyError as error:
            raise self._missing_token(error.args[0]) from error

    def _is_text(self, token_id: int) -> bool:
        if token_id in self._names or token_id >= self.num_base_ids:
            return False
        try:
            self._backend.token_bytes(token_id)
        except KeyError:
            return False
        return True

    def _token_string(self, token_id: int) -> str:
        if token_id in self._names:
            return self._names[token_id]
        return _printable(self._bytes(token_id).decode("utf-8", "backslashreplace"))

    def _bytes(self, token_id: int) -> bytes:
        try:
            return self._backend.token_bytes(token_id)
        except KeyError as error:
            raise self._missing_token(token_id) from error

    def _missing_token(self, token_id: object) -> TokenizerError:
        return TokenizerError(f"no token of {self.name} has the id {token_id} (ids go from 0 to {self.num_ids - 1})")


def _printable(text: str) -> str:
    """Escape characters that cannot be printed, line ends among them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def load_tokenizer(config: TokenizerConfig, *, num_meta_tokens: int = 5) -> Tokenizer:
    """Load a vocabulary and assign ids to the special tokens; takes up to a second.

    Args:
        config: the vocabulary and its settings.
        num_meta_tokens: number of meta tokens to place: the largest number of any layout.

    Raises:
        TokenizerError: the vocabulary is unknown, missing, damaged or cannot be downloaded, or it has no room for
            the special tokens.
    """
    if config.path is not None:
        backend = load_file(Path(local_path(config.path)), pattern=config.pattern)
        config = config.model_copy(update={"path": absolute_path(config.path)})
    elif config.is_in_hub:
        found = find_in_hub(str(config.name))
        config = config.model_copy(update={"name": found.name})
        backend = load_file(found.path, pattern=config.pattern, name=found.repository)
    else:
        backend = load_named(str(config.name))
    assignment = assign_special_ids(
        config.model_dump(include={"bos", "eos", "pad", "boc", "eoc"}),
        slots=config.special_slots or ("reserved" if config.name == "tekken" else "added"),
        num_meta_tokens=num_meta_tokens,
        existing=backend.special,
        num_base_ids=backend.num_ids,
        is_ordinary=backend.is_ordinary,
    )
    return Tokenizer(backend, assignment, config)
