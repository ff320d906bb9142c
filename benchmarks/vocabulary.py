"""One vocabulary in the formats that contestants read: a `.tiktoken` file and a Hugging Face `tokenizer.json`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiktoken
from tokenizers import Tokenizer

from benchmarks.job import Vocabulary
from colophon.shards.tokenizer.backends import spelling
from colophon.shards.tokenizer.patterns import PATTERNS

PATTERN_NAME = "gpt2"
"""Its expression is built into `tokenizers`, so peers that use that library run at its full speed."""


class VocabularyError(RuntimeError):
    """The two formats give different ids."""


def both_formats(path: Path, *, texts: Sequence[str], output: Path) -> Vocabulary:
    """Write the vocabulary of the `.tiktoken` file `path` as a `tokenizer.json`, and check that both give the same ids.

    Args:
        path: ranks, one line of base64 and number each.
        texts: the texts to compare.
        output: the JSON file to write.

    Raises:
        VocabularyError: the ids of a text differ.
    """
    ranks = read_ranks(path)
    output.write_text(json.dumps(huggingface_json(ranks), ensure_ascii=False), encoding="utf-8")
    reference = tiktoken.Encoding(
        "bench", pat_str=PATTERNS[PATTERN_NAME], mergeable_ranks=dict(ranks), special_tokens={}
    )
    encoded = Tokenizer.from_file(str(output)).encode_batch(list(texts))
    for text, found in zip(texts, encoded, strict=True):
        if found.ids != reference.encode(text, disallowed_special=()):
            raise VocabularyError(
                f"{output.name} gives different ids than {path.name} for a text that begins {text[:60]!r}"
            )
    return Vocabulary(
        tiktoken=str(path),
        pattern_name=PATTERN_NAME,
        pattern=PATTERNS[PATTERN_NAME],
        huggingface=str(output),
        num_ids=max(ranks.values()) + 1,
    )


def read_ranks(path: Path) -> dict[bytes, int]:
    """Read the ids of all tokens, in the order of ids."""
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    return dict(sorted(ranks.items(), key=lambda item: item[1]))


def huggingface_json(ranks: Mapping[bytes, int]) -> dict[str, Any]:
    """Return a byte-level BPE `tokenizer.json` with the same ids.

    tiktoken merges the pair that joins to the token of the lowest rank, so every way to cut a token into two tokens is
    a merge of its rank.
    """
    merges = [(token[:i], token[i:]) for token in ranks for i in range(1, len(token))]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {spelling(token): rank for token, rank in ranks.items()},
            "merges": [f"{spelling(a)} {spelling(b)}" for a, b in merges if a in ranks and b in ranks],
        },
    }
