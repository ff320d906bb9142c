"""The regular expressions with which known vocabularies split text before bytes are merged.

They are constants, since tiktoken provides them only with a download. Sources: `tiktoken_ext/openai_public.py` of
tiktoken 0.14 for the first three (faster spellings of the published models' expressions), and the `config` of
`tekken_240718.json` in mistral-common for the last (Mistral-Nemo).
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
"""Name to regular expression. The alternatives match every character, so that no text is dropped."""


def find_pattern(pattern: str) -> str:
    """The regular expression with the name `pattern`, or `pattern` itself if no expression has that name."""
    return PATTERNS.get(pattern, pattern)
