"""The regular expressions by which known vocabularies split text before merging bytes.

Stated here because tiktoken gives them only together with a download. Sources: `tiktoken_ext/openai_public.py` of
tiktoken 0.14 for the first three (they match what the published models use, written so that they run faster), and
the `config` of `tekken_240718.json` in mistral-common for the last (Mistral-Nemo).
"""

from __future__ import annotations

_O200K_UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_O200K_LOWER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"

PATTERNS: dict[str, str] = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    "o200k_base": (
        rf"{_O200K_UPPER}{_CONTRACTION}|{_O200K_LOWER}{_CONTRACTION}|\p{{N}}{{1,3}}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_O200K_SPACE}"
    ),
    "tekken": rf"{_O200K_UPPER}|{_O200K_LOWER}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_O200K_SPACE}",
}
"""Name to regular expression. Any text is matched by one of the alternatives, so that no character is lost."""


def find_pattern(pattern: str) -> str:
    """The regular expression that `pattern` names, or `pattern` itself where it names none."""
    return PATTERNS.get(pattern, pattern)
