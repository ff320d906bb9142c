"""The backend of Hugging Face's `tokenizers`, and the parts of a `tokenizer.json` that keep every character."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer

from colophon.shards.common.digests import fingerprint
from colophon.shards.common.errors import panics_as_errors
from colophon.shards.tokenizer.backends import BYTE_OF_CHAR, encode_in_parts
from colophon.shards.tokenizer.engine_specs import EngineSpec, json_spec
from colophon.shards.tokenizer.text_rows import Ids

METASPACE = "▁"
"""SentencePiece's sign for a space, U+2581."""


class HuggingFaceBackend:
    """A `tokenizer.json` with its normalizer, pre-tokenizer and model; everything that adds or cuts ids is off."""

    library = "tokenizers"
    first_id = 0

    def __init__(self, content: dict[str, Any], *, name: str) -> None:
        """Build from the parsed file. `tokenizers` raises bare Exceptions for an invalid one."""
        # Dropout would make ids random; padding, truncation and post-processors add or remove ids.
        model = {**content["model"], "dropout": None} if "dropout" in content["model"] else content["model"]
        content = {**content, "model": model, "padding": None, "truncation": None, "post_processor": None}
        if content.get("decoder") is None and _is_byte_level(content):
            content["decoder"] = {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            }
        self._json = json.dumps(content)  # text, since Python objects would take several times the memory
        self._tokenizer = HuggingFaceTokenizer.from_str(self._json)
        self._tokenizer.encode_special_tokens = True
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.name = name
        self.num_ids = max(vocabulary.values(), default=-1) + 1
        added = self._tokenizer.get_added_tokens_decoder()
        self.special: Mapping[str, int] = {token.content: i for i, token in added.items() if token.special}
        self.sha256 = fingerprint({k: content.get(k) for k in ("model", "normalizer", "pre_tokenizer", "added_tokens")})
        self._vocabulary = vocabulary
        self.joins_bytes = '"ByteLevel"' in json.dumps(content.get("decoder"))
        self.marked_strings = (*(t.content for t in added.values() if not t.special), *_patterns(content))
        unknown = _unknown_token(model)
        self.unknown_id = None if unknown is None else self._tokenizer.token_to_id(unknown)
        self.is_exact = _is_exact(content)
        self._known_ids = frozenset(vocabulary.values())
        self._spelled = self._spellings(unknown)
        self._is_spelled = np.zeros(self.num_ids, dtype=bool)
        self._is_spelled[list(self._spelled)] = True

    @property
    def content(self) -> dict[str, Any]:
        """The parsed `tokenizer.json` without what adds, cuts or drops ids; the caller may change it."""
        content: dict[str, Any] = json.loads(self._json)
        return content

    def encode(self, text: str) -> Ids:
        """See `Backend.encode`."""
        ids = encode_in_parts(self._encode, text)
        found = np.flatnonzero(self._is_spelled[ids])
        if not found.size:
            return ids
        # ids [5, 2, 7] with 2 at place 1 split into [5] [2] [7]; the parts of odd number are spelled out
        parts = np.split(ids, np.stack([found, found + 1], axis=1).ravel())
        return np.concatenate([self._spelled[int(p[0])] if k % 2 else p for k, p in enumerate(parts)])

    def decode(self, ids: list[int]) -> str:
        """See `Backend.decode`."""
        if missing := set(ids) - self._known_ids:
            raise KeyError(min(missing))
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def token_bytes(self, token_id: int) -> bytes:
        """See `Backend.token_bytes`; UTF-8 of the vocabulary's own spelling (with ▁, say) unless it is byte-level."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            raise KeyError(token_id)
        if self.joins_bytes and all(char in BYTE_OF_CHAR for char in token):
            return bytes(BYTE_OF_CHAR[char] for char in token)
        return str(token).encode()

    def is_ordinary(self, name: str) -> bool:
        """See `Backend.is_ordinary`."""
        return name in self._vocabulary and name not in self.special

    def engine_spec(self) -> EngineSpec:
        """See `Backend.engine_spec`."""
        return json_spec(json.loads(self._json), alphabet=BYTE_OF_CHAR)

    def _encode(self, text: str) -> Ids:
        # A call with one text uses one thread; the pipeline runs one process a core.
        with panics_as_errors():  # its regular expressions panic after ten million steps in one match
            encodings = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return np.array(encodings[0].ids, dtype=np.uint32)

    def _spellings(self, unknown: str | None) -> dict[int, Ids]:
        """The ids of the characters of each special token, by its id.

        `encode_special_tokens` stops the search for special tokens in text, but a Unigram model with `</s>` among its
        pieces still gives its id. Such ids are replaced by those of the characters. The unknown token is kept, since
        it is correct for text that has no token.
        """
        model = self._tokenizer.model
        ids_of = {i: [t.id for char in name for t in model.tokenize(char)] for name, i in self.special.items()}
        return {i: np.array(ids_of[i], dtype=np.uint32) for name, i in self.special.items() if name != unknown}


def _is_exact(content: Mapping[str, Any]) -> bool:
    """Whether normalizer, pre-tokenizer and model are known parts that keep every character of any text.

    These are byte-level BPE and BPE with byte fallback, as Llama and Gemma have them. A normalizer that composes
    characters (NFC), a Unigram model or an added token that swallows spaces is not among them.
    """
    model, added = content["model"], content.get("added_tokens") or []
    if model.get("type", "BPE") != "BPE" or any(
        model.get(k) for k in ("continuing_subword_prefix", "end_of_word_suffix")
    ):
        return False
    if any(not token.get("special") and (token.get("lstrip") or token.get("rstrip")) for token in added):
        return False
    normalizers = list(_steps(content.get("normalizer"), "normalizers"))
    splitters = list(_steps(content.get("pre_tokenizer"), "pretokenizers"))
    if not all(map(_is_harmless_splitter, splitters)):
        return False
    if content.get("decoder") is None:
        return False
    if _is_byte_level(content):
        return not normalizers and all(char in model["vocab"] for char in BYTE_OF_CHAR)
    has_fallback = model.get("byte_fallback") and all(f"<0x{byte:02X}>" in model["vocab"] for byte in range(256))
    return bool(has_fallback) and not model.get("ignore_merges") and all(map(_is_metaspace_normalizer, normalizers))


def _is_byte_level(content: Mapping[str, Any]) -> bool:
    return any(step.get("type") == "ByteLevel" for step in _steps(content.get("pre_tokenizer"), "pretokenizers"))


def _is_harmless_splitter(step: Mapping[str, Any]) -> bool:
    kind = step.get("type")
    if kind in ("Split", "Punctuation"):
        return bool(step.get("behavior", "Isolated") != "Removed")
    if kind == "Metaspace":
        return bool(step.get("replacement", METASPACE) == METASPACE)
    return kind in ("ByteLevel", "Digits", "UnicodeScripts")


def _is_metaspace_normalizer(step: Mapping[str, Any]) -> bool:
    if step.get("type") == "Prepend":
        return bool(step.get("prepend") == METASPACE)
    return step.get("type") == "Replace" and (step.get("pattern"), step.get("content")) == ({"String": " "}, METASPACE)


def _patterns(content: Mapping[str, Any]) -> list[str]:
    """The strings that the normalizer replaces or the pre-tokenizer splits at; regular expressions excepted."""
    steps = [*_steps(content.get("normalizer"), "normalizers"), *_steps(content.get("pre_tokenizer"), "pretokenizers")]
    patterns = [step.get("pattern") for step in steps]
    strings = [pattern["String"] for pattern in patterns if isinstance(pattern, dict) and "String" in pattern]
    return [*strings, *(step["delimiter"] for step in steps if step.get("type") == "CharDelimiterSplit")]


def _steps(found: Mapping[str, Any] | None, key: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, sequences flattened; `key` is the sequence's list."""
    if found is None:
        return
    if found.get("type") == "Sequence":
        for part in found.get(key, []):
            yield from _steps(part, key)
    else:
        yield found


def _unknown_token(model: Mapping[str, Any]) -> str | None:
    if model.get("unk_id") is not None:
        return str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token")
