"""Export of a vocabulary with its special tokens as Hugging Face's `tokenizer.json`.

A tiktoken vocabulary becomes byte-level BPE. tiktoken merges the pair whose joint token has the lowest rank;
`tokenizers` merges pairs in the order of a list. So the list has every pair of tokens that join to a token, by its
rank. A `tokenizer.json` keeps its content. Both are compared with the tokenizer of training on the hard texts of
`shards.tokenizer.hard_texts`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer

from colophon.shards.tokenizer.backends import TiktokenBackend, spelling
from colophon.shards.tokenizer.hard_texts import hard_texts
from colophon.shards.tokenizer.hugging_face import HuggingFaceBackend
from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.errors import TrainerError

_CLASS_OR_ESCAPE = r"\\[pP]\{[^}]*\}|\\.|\[(?:\\.|[^\]\\])*\]"
_COUNTED_POSSESSIVE = re.compile(rf"({_CLASS_OR_ESCAPE}|[^\\\[\](){{}}|?*+])(\{{\d+(?:,\d*)?\}})\+")
_END = re.compile(rf"({_CLASS_OR_ESCAPE})|\$")


@dataclass(frozen=True, kw_only=True)
class ExportedTokenizer:
    """A `tokenizer.json`, with its differences from the tokenizer of training."""

    content: str
    num_texts: int
    """Number of hard texts whose ids were compared."""
    different: tuple[str, ...]
    """Hard texts for which it gives different ids; each contains the name of a special token."""


def export_tokenizer(tokenizer: Tokenizer) -> ExportedTokenizer:
    """`tokenizer` as a `tokenizer.json` that puts bos before a text when special tokens are requested.

    Costs one to two seconds for the largest vocabularies, most of it for the comparison.

    Raises:
        TrainerError: `tokenizers` cannot hold the vocabulary, or gives different ids for a text.
    """
    backend = tokenizer.backend
    if isinstance(backend, TiktokenBackend):
        content = _from_ranks(backend, tokenizer.special_names)
    elif isinstance(backend, HuggingFaceBackend):
        content = _with_names(backend.content, tokenizer.special_names)
    else:
        raise TrainerError(f"tokenizer {tokenizer.name}: a vocabulary of {backend.library} cannot be exported")
    content["post_processor"] = _bos_first(tokenizer)
    text = json.dumps(content, ensure_ascii=False)
    try:
        found = HuggingFaceTokenizer.from_str(text)
    except Exception as error:  # `tokenizers` raises bare Exceptions
        raise TrainerError(f"tokenizer {tokenizer.name}: cannot be exported: {error}") from error
    _check_names(found, tokenizer)
    texts = [*hard_texts(backend), *tokenizer.special_names.values()]
    return ExportedTokenizer(content=text, num_texts=len(texts), different=_different_texts(found, tokenizer, texts))


def oniguruma(pattern: str) -> str:
    r"""A tiktoken pattern in the syntax of the regular expressions of `tokenizers` (Oniguruma's for Ruby).

    There `x{1,3}+` is a repeated repetition rather than a possessive one, and `$` matches before each line break: they
    become `(?>x{1,3})` and `\z`.
    """
    atomic = _COUNTED_POSSESSIVE.sub(r"(?>\1\2)", pattern)
    return _END.sub(lambda found: found[1] or r"\z", atomic)


def _from_ranks(backend: TiktokenBackend, names: Mapping[int, str]) -> dict[str, Any]:
    spelled = {token: spelling(token) for token in backend.ranks}
    vocabulary = {spelled[token]: rank + backend.first_id for token, rank in backend.ranks.items()}
    clashing = [name for name in names.values() if name in vocabulary]
    if clashing:
        raise TrainerError(
            f"special token {clashing[0]!r} is spelled like an ordinary token; export needs another name"
        )
    split = {"type": "Split", "pattern": {"Regex": oniguruma(backend.pattern)}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(token_id, name) for token_id, name in sorted(names.items())],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,  # tiktoken too first checks whether a piece is a token as a whole
            # `tokenizers` numbers added tokens itself, unless their names are in the vocabulary.
            "vocab": vocabulary | {name: token_id for token_id, name in names.items()},
            "merges": [f"{spelled[left]} {spelled[right]}" for left, right in _merges(backend.ranks)],
        },
    }


def _merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield all pairs of tokens that join to a token, by its rank.

    The token `the` gives (t, he) if `he` is a token, and (th, e) if `th` is one.
    """
    for token in sorted(ranks, key=ranks.__getitem__):
        for cut in range(1, len(token)):
            if token[:cut] in ranks and token[cut:] in ranks:
                yield token[:cut], token[cut:]


def _with_names(content: dict[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    """A `tokenizer.json` with the special tokens of layouts, some of which may have taken its reserved slots."""
    added = {token["id"]: token for token in content.get("added_tokens") or []}
    replaced = {token["content"] for i, token in added.items() if names.get(i, token["content"]) != token["content"]}
    added |= {i: _added(i, name) for i, name in names.items() if i not in added or added[i]["content"] in replaced}
    content["added_tokens"] = [added[token_id] for token_id in sorted(added)]
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, dict):  # as in `_from_ranks`: otherwise `tokenizers` numbers them itself
        for name in replaced:
            vocabulary.pop(name, None)
        vocabulary |= {token["content"]: token_id for token_id, token in added.items()}
    return content


def _added(token_id: int, name: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": name, **flags}


def _bos_first(tokenizer: Tokenizer) -> dict[str, Any]:
    bos = tokenizer.special.bos
    name = tokenizer.special_names[bos]
    first: list[dict[str, Any]] = [{"SpecialToken": {"id": name, "type_id": 0}}]
    text: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}
    other: dict[str, Any] = {"Sequence": {"id": "B", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*first, text],
        "pair": [*first, text, other],
        "special_tokens": {name: {"id": name, "ids": [bos], "tokens": [name]}},
    }


def _check_names(found: HuggingFaceTokenizer, tokenizer: Tokenizer) -> None:
    for token_id, name in tokenizer.special_names.items():
        got = found.token_to_id(name)
        if got != token_id or found.decode([token_id], skip_special_tokens=False) != name:
            raise TrainerError(
                f"tokenizer {tokenizer.name}: `tokenizers` cannot hold the special token {name!r} at id {token_id}"
            )


def _different_texts(found: HuggingFaceTokenizer, tokenizer: Tokenizer, texts: list[str]) -> tuple[str, ...]:
    """Texts that get different ids than in training; only texts with names of special tokens may."""
    found.encode_special_tokens = True
    encoded = found.encode_batch_fast(texts, add_special_tokens=False)
    pairs = zip(texts, encoded, strict=True)
    different = [text for text, got in pairs if not np.array_equal(got.ids, tokenizer.backend.encode(text))]
    for text in different:
        if not any(name in text for name in tokenizer.special_names.values()):
            raise TrainerError(
                f"tokenizer {tokenizer.name}: its tokenizer.json gives different ids than in training for "
                f"{text[:40]!r}: `tokenizers` interprets its pattern differently"
            )
    return tuple(different)
