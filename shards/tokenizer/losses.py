"""Text that a vocabulary loses: found before a run by a probe over Unicode, counted in a run for each document.

The law is that the ids of a text decode to the text. A vocabulary breaks it if it has no token for a character and no
bytes to spell it with, lower-cases, drops white space or accents, or if its added tokens swallow spaces.

Four changes are noted, not refused: characters become canonically equivalent ones (NFC, as in GPT-NeoX);
SentencePiece's sign for a space becomes a space; a space at the beginning of a text is dropped or added (Metaspace);
the name of a byte token in a text becomes the byte (Unigram with byte fallback). A run counts the last as a loss.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
import pyarrow as pa
from tokenizers import normalizers

from colophon.shards.tokenizer.backends import Backend
from colophon.shards.tokenizer.hard_texts import hard_texts
from colophon.shards.tokenizer.hugging_face import METASPACE

LOSS_COUNTS = ("documents_lossy", "documents_normalized", "characters_lost", "tokens_unknown")
"""Keys of `count_losses`."""

NOTES = {
    "canonical": "characters become canonically equivalent ones (such as NFC)",
    "metaspace": f"{METASPACE!r} U+2581 becomes a space",
    "first space": "a space at the beginning of a text is dropped or added",
    "byte name": "the name of a byte in a text, such as '<0x41>', becomes the byte",
}
"""Changes that need no permission, and how they are described."""

_ALIKE = ("canonical", "metaspace", "first space")
_BYTE_NAME = re.compile("<0x[0-9A-F]{2}>")

_COMMON = (
    *"中яéA😀한ก1हع\n ",  # one of each kind first: errors show the first ones
    *"ßñøÅÇžđ文字漢のカーヶ국Пжιλως☃שםربयिதமிழ்ำไăếʰŁœ’“”–—…•€£°½²①Ⅷ™ﬁﬀＡ㎏\u212b\u0301\u200d\ufeff\ufffd",
    *("\t", "\r", "\x0b", "\x0c", "\x00", "\x01", "\x1b", "\x7f", "\x85", "\u00a0", "\u2028", "\u3000", "\u200b"),
    *"🏳👩🇩𝒜𠀀\ue000\U0010ffff",
    *(chr(code) for code in range(0x20, 0x7F)),
    METASPACE,
)
_BESIDE = (
    *("  ", "   ", " a", "a ", "a  b", "a\n", "\na", "a\n\n b", "a\r\nb", "\ta", "a \n b", " \n", "a , b .", "don't"),
    *("e\u0301", "Ab aB", "a" * 300),
)
_MOST_CHARACTERS = 40
_MOST_TEXTS = 5
_SHOWN = 8
_PART = 64


@dataclass(frozen=True)
class Losses:
    """The text that a vocabulary loses, as far as the probe found it."""

    characters: tuple[str, ...]
    """Characters that do not come back, common ones first; at most 40 are searched for."""
    texts: tuple[tuple[str, str], ...]
    """Texts of other characters, and what they decode to."""
    notes: tuple[str, ...]
    """Keys of `NOTES`: changes that need no permission."""

    @property
    def any(self) -> bool:
        """Whether content is lost."""
        return bool(self.characters or self.texts)

    def describe(self) -> str:
        """The losses in one line: `loses: '中' U+4E2D, 'я' U+044F; changes: 'a  b' to 'a b'`."""
        shown = [f"{char!r} U+{ord(char):04X}" for char in self.characters[:_SHOWN]]
        shown += ["…"] if len(self.characters) > _SHOWN else []
        changed = [f"{_short(text)} to {_short(back)}" for text, back in self.texts[: _SHOWN // 4]]
        parts = [f"loses: {', '.join(shown)}"] if shown else []
        return "; ".join(parts + ([f"changes: {', '.join(changed)}"] if changed else []))


def find_losses(backend: Backend) -> Losses:
    """The characters and texts that `backend` loses.

    Cost: some milliseconds for a vocabulary that `is_exact`; else about 0.7 s, for all assigned characters and the hard
    texts, which hold the vocabulary's own tokens.
    """
    probe = _Probe(backend)
    for char in _COMMON:
        probe.try_character(char)
    for text in (*_BESIDE, *_around(backend.marked_strings)):
        probe.try_text(text)
    if not backend.is_exact:
        for text in chain(_assigned_characters(), hard_texts(backend)):
            if probe.is_full:
                break
            probe.try_text(text)
    return Losses(tuple(probe.characters), tuple(probe.texts), tuple(key for key in NOTES if key in probe.notes))


def count_losses(backend: Backend, texts: pa.Array, input_ids: pa.ListArray) -> dict[str, int]:
    """The losses in a batch: documents whose text does not come back, of these the ones that are canonically
    equivalent, characters that are missing in what comes back, and tokens for unknown characters.

    Only vocabularies that are not `is_exact` can have any; for others the result is empty, at no cost.

    Args:
        backend: the vocabulary.
        texts: string or large_string [documents]; a null has no ids.
        input_ids: the ids of each text.
    """
    if backend.is_exact:
        return {}
    counts = dict.fromkeys(LOSS_COUNTS, 0)
    if backend.unknown_id is not None:
        counts["tokens_unknown"] = int(np.count_nonzero(input_ids.flatten().to_numpy() == backend.unknown_id))
    for text, ids in zip(texts.to_pylist(), input_ids.to_pylist(), strict=True):
        if not text or (back := backend.decode(ids)) == text:
            continue
        if changes(text, back) is None:
            counts["documents_lossy"] += 1
            counts["characters_lost"] += _num_lost(text, back)
        else:
            counts["documents_normalized"] += 1
    return counts


def changes(text: str, back: str) -> frozenset[str] | None:
    """The keys of `NOTES` that explain why `text` came back as `back`; None if it has other content."""
    if _alike(text, back, without=None):
        return frozenset(key for key in _ALIKE if not _alike(text, back, without=key))
    return None


class _Probe:
    """Collects what a vocabulary loses."""

    def __init__(self, backend: Backend) -> None:
        self.characters: dict[str, None] = {}
        self.texts: dict[tuple[str, str], None] = {}
        self.notes: set[str] = set()
        self._backend = backend

    @property
    def is_full(self) -> bool:
        """Whether enough was found to show."""
        return len(self.characters) >= _MOST_CHARACTERS or len(self.texts) >= _MOST_TEXTS

    def try_character(self, char: str) -> bool:
        """Whether a character between two others comes back; records it if not."""
        is_kept = self._comes_back(f"x{char}y") is None
        if not is_kept and len(self.characters) < _MOST_CHARACTERS:
            self.characters[char] = None
        return is_kept

    def try_text(self, text: str) -> None:
        """Record the characters that a text loses, or the text if each of its characters comes back alone."""
        back = self._comes_back(text)
        if back is None or self.is_full or self.characters.keys() & set(text):
            return
        lost = [char for char in dict.fromkeys(text) if not self.try_character(char)]
        if not lost:
            self.texts[text, back] = None

    def _comes_back(self, text: str) -> str | None:
        """None if a text comes back, or is changed in a way that is noted; else what comes back."""
        back = self._backend.decode(self._backend.encode(text).tolist())
        if back == text:
            return None
        noted = changes(text, back)
        if noted is None and (without := _BYTE_NAME.sub("", text)) != text and self._comes_back(without) is None:
            noted = frozenset({"byte name"})
        self.notes |= noted or frozenset()
        return back if noted is None else None


def _alike(text: str, back: str, *, without: str | None) -> bool:
    """Whether two texts are equal but for the changes of `NOTES`, the change `without` excepted."""
    pair = [text, back]
    if without != "metaspace":
        pair = [each.replace(METASPACE, " ") for each in pair]
    if without != "canonical":
        # This library's Unicode version is the one that the vocabulary's own normalizer has.
        pair = [normalizers.NFC().normalize_str(each) for each in pair]
    shorter, longer = sorted(pair, key=len)
    return shorter == longer or (without != "first space" and f" {shorter}" == longer)


def _num_lost(text: str, back: str) -> int:
    """The number of characters of `text` that `back` lacks, whatever their order: 2 for `abba` and `xab`."""
    kept, found = (np.frombuffer(each.encode("utf-32-le"), np.uint32) for each in (text, back))
    codes, places = np.unique(np.concatenate([kept, found]), return_inverse=True)
    missing = np.bincount(places[: kept.size], minlength=codes.size) - np.bincount(
        places[kept.size :], minlength=codes.size
    )
    return int(missing.clip(0).sum())


def _around(strings: Iterable[str]) -> Iterator[str]:
    """Texts with each string, with and without spaces beside it."""
    return (text for string in strings for text in (f"x {string} y", f"x{string}y"))


@cache
def _assigned_characters() -> tuple[str, ...]:
    """All assigned characters but those of private use, in texts of 64."""
    known = [char for char in map(chr, range(0x110000)) if unicodedata.category(char) not in ("Cn", "Cs", "Co")]
    return tuple("".join(part) for part in _parts(known))


def _parts(chars: list[str]) -> Iterable[list[str]]:
    return (chars[i : i + _PART] for i in range(0, len(chars), _PART))


def _short(text: str) -> str:
    return f"{text[:24]!r}{'…' if len(text) > 24 else ''}"
