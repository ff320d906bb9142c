"""Specifications from which the fast engine is built, for vocabularies that it can encode exactly."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from colophon.shards.tokenizer.patterns import PATTERNS

SCHEMES: dict[str, str] = {
    PATTERNS["gpt2"]: "gpt2",
    PATTERNS["cl100k_base"]: "gpt4",
    PATTERNS["o200k_base"]: "o200k",
    PATTERNS["tekken"]: "nemotron",
    # Equivalent expressions as the models' own files spell them: GPT-2, GPT-4, Llama 3, Qwen 2.
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "olmo3",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}
"""Regular expression to the engine's name for it. They use only the character classes that the table of
`shards.tokenizer.unicode_differences` covers."""


class NoEngineError(Exception):
    """The fast engine cannot encode with a vocabulary; the message gives the reason in a few words.

    The tokenizer catches it and uses the reference library.
    """


@dataclass(frozen=True)
class EngineSpec:
    """The specification of an engine for one vocabulary."""

    build: Callable[[Any], Any]
    """Builds the engine's tokenizer from the engine's module."""
    reference_strings: tuple[str, ...] = ()
    """Texts that contain one of these are encoded by the reference."""


def ranks_spec(ranks: Mapping[bytes, int], *, pattern: str) -> EngineSpec:
    """The specification for a tiktoken vocabulary.

    Raises:
        NoEngineError: the engine lacks the pattern, or would misread the ranks.
    """
    scheme = SCHEMES.get(pattern)
    if scheme is None:
        raise NoEngineError("no fast engine supports its pattern")
    tokens = sorted(ranks, key=ranks.__getitem__)
    if [ranks[token] for token in tokens] != list(range(len(tokens))):
        raise NoEngineError("its ranks have gaps")
    if any(len(token) != 1 for token in tokens[:256]):
        raise NoEngineError("its first 256 ranks are not the bytes")  # the engine keeps ranks of bytes in one byte
    lines = b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))

    def build(module: Any) -> Any:
        # The engine reads ranks from a file only.
        file, path = tempfile.mkstemp(suffix=".tiktoken")
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(lines)
            return module.BPETokenizer.from_tiktoken(path, scheme)
        finally:
            os.unlink(path)  # noqa: PTH108 - mkstemp gives a string

    return EngineSpec(build)


def json_spec(content: Mapping[str, Any], *, alphabet: Mapping[str, int]) -> EngineSpec:
    """The specification for a Hugging Face vocabulary.

    Args:
        content: the parsed `tokenizer.json`.
        alphabet: character to byte, as byte-level vocabularies spell bytes.

    Raises:
        NoEngineError: the vocabulary has a setting that the engine lacks or treats differently.
    """
    model = content["model"]
    _check_model(model, alphabet)
    if content.get("normalizer") is not None:
        raise NoEngineError("it normalizes text")
    reduced: dict[str, Any] = {
        # Text never gives tokens with characters outside the alphabet; the engine would read them as UTF-8.
        "model": {**model, "vocab": {t: i for t, i in model["vocab"].items() if all(c in alphabet for c in t)}},
        "pre_tokenizer": _known_splitter(content.get("pre_tokenizer")),
        "normalizer": None,
        "added_tokens": [],
    }
    added = content.get("added_tokens") or []
    found = [t["content"] for t in added if not t.get("special") or t["content"] in model["vocab"]]
    if not all(found):
        raise NoEngineError("it has an added token without a name")
    data = json.dumps(reduced)
    return EngineSpec(lambda module: module.load_hf_json(data), reference_strings=tuple(found))


def _check_model(model: Mapping[str, Any], alphabet: Mapping[str, int]) -> None:
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback"):
        raise NoEngineError("it is not a byte-level BPE vocabulary")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise NoEngineError("it marks the begin or end of words")
    if not all(char in model["vocab"] for char in alphabet):
        raise NoEngineError("it has no token for some bytes")
    pairs = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    if len({"".join(pair) for pair in pairs}) < len(pairs):
        raise NoEngineError("two of its merges give the same token")


def _known_splitter(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The pre-tokenizer, reduced to the settings that the engine reads."""
    steps = _steps(found)
    if any(step.get("add_prefix_space") for step in steps):
        raise NoEngineError("it adds a space before text")
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    is_split = kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True)
    if not is_split or steps[0].get("behavior") != "Isolated" or steps[0].get("invert"):
        raise NoEngineError("no fast engine supports its pre-tokenizer")
    if (steps[0].get("pattern") or {}).get("Regex") not in SCHEMES:
        raise NoEngineError("no fast engine supports its pattern")
    return {"type": "Sequence", "pretokenizers": [steps[0], {**steps[1], "add_prefix_space": False}]}


def _steps(found: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The pre-tokenizer's steps, sequences flattened."""
    if found is None:
        return []
    if found.get("type") == "Sequence":
        return [step for part in found.get("pretokenizers", []) for step in _steps(part)]
    return [found]
