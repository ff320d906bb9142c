"""Cleaning of texts: prose apart from markup, code and changelogs."""

from __future__ import annotations

import hashlib
import re

MAX_DOCUMENT_CHARS = 10_000


def tidy(text: str) -> str:
    """The text without control characters, lone surrogates, trailing blanks and runs of empty lines."""
    text = text.expandtabs(4).replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ufeff]", "", text)
    text = re.sub(r"[\ud800-\udfff]", "\ufffd", text)
    text = re.sub(r"[ \u00a0]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


_MARKUP = (
    (r"(?s)<!--.*?-->", ""),
    (
        r"(?i)(?<![`\w])</?(a|b|br|center|details|div|em|h\d|hr|img|kbd|p|picture|source|span|strong|sub|summary|sup)\b[^<>]*>",
        "",
    ),
    (r"\[?!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])(\](\([^)]*\)|\[[^\]]*\]))?", ""),  # images, and images that are links
    (r"(?m)^\.\. (\|[^|]*\| )?(image|figure|raw|contents)::.*(\n(?=[ \t\n]).*)*", ""),
    (r"(?m)^\.\. _[^\n]*: *http\S*$", ""),
    (r"(?m)^ {0,3}\[[^\]\n]+\]: *\S+.*$", ""),
    (r"(?<![!\w\])])\[([^\]\n]+)\](\([^)\s]*\)|\[[^\]\n]*\])", r"\1"),  # links
    (r"`([^`<\n]+) <https?://[^>\s]*>`__?", r"\1"),
    (r"(?m)^( *\|[^|\n]+\|)+ *$", ""),  # substitutions, each of them a badge
)


def plain(text: str) -> str:
    """A README without badges, images, HTML tags and link targets; other markup is kept."""
    text = tidy(text)
    for pattern, replacement in _MARKUP:
        text = re.sub(pattern, replacement, text)
    return tidy(text)


_CHANGELOG = re.compile(
    r"^(#+ *)?(change ?-?log|changes|release notes|release history|history):?$(?=.{,200}?\b\d+\.\d+)",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)


def split_changelog(text: str) -> tuple[str, str]:
    """The text before the changelog, and the changelog: from its heading on, which a version number must follow."""
    match = _CHANGELOG.search(text)
    return (text[: match.start()].rstrip(), text[match.start() :]) if match else (text, "")


def clip(text: str) -> str:
    """The first MAX_DOCUMENT_CHARS characters, cut at the end of the last paragraph if that is in the second half."""
    if len(text) <= MAX_DOCUMENT_CHARS:
        return text
    end = text.rfind("\n\n", MAX_DOCUMENT_CHARS // 2, MAX_DOCUMENT_CHARS)
    return text[: end if end > 0 else MAX_DOCUMENT_CHARS].rstrip()


def prose_share(text: str) -> float:
    """The share of characters in lines of running sentences: at least 6 words, three quarters of them plain."""
    lines = [line.strip() for line in text.splitlines()]
    total = sum(map(len, lines))
    return sum(len(line) for line in lines if _is_prose(line)) / total if total else 0.0


_PLAIN_WORD = re.compile(r"[\"'(`*]*[A-Za-z][a-z'’-]*[.,;:!?)\"'`*]*")
_NO_SENTENCE = (">>>", "...", "|", "+", "#", ":", "@")


def _is_prose(line: str) -> bool:
    words = line.split()
    if len(words) < 6 or line.startswith(_NO_SENTENCE):
        return False
    return sum(_PLAIN_WORD.fullmatch(word) is not None for word in words) >= 0.75 * len(words)


def digest(text: str) -> str:
    """sha256 of a text, in hexadecimal. It gives the order and the split of the corpus."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
