"""Finding the words of texts, with the hashes of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.compilation import compiled, inlined
from colophon.annotators.fasttext.kernel.compiled.structures import LABEL_SIGN, Words

_SEPARATOR = np.zeros(256, np.uint8)
_SEPARATOR[[0, 9, 10, 11, 12, 13, 32]] = 1
_LABEL = np.frombuffer(b"__label__", np.uint8)
FNV_32, _FNV_32_PRIME = 2166136261, 16777619
_FNV_64, _FNV_64_PRIME = 14695981039346656037, 1099511628211
_END_HASH = np.int32(-677604519)
END_KEY = np.uint64(8922757976467958425)
"""The key of `</s>`."""


@compiled
def find_words(words: Words, spans: npt.NDArray[np.int64]) -> int:
    """Fill `words` with the words of the texts `words.data[begin:end]` for each of `spans`; returns their number."""
    data = words.data
    n = 0
    for text in range(spans.shape[0]):
        at, end = np.uintp(spans[text, 0]), np.uintp(spans[text, 1])
        while True:
            while at < end and _SEPARATOR[data[at]]:
                at += np.uintp(1)
            if at >= end:
                break
            start = at
            h, key = np.uint64(FNV_32), np.uint64(_FNV_64)
            while at < end and not _SEPARATOR[data[at]]:
                h = hashed(h, data[at])
                key = (key ^ np.uint64(data[at])) * np.uint64(_FNV_64_PRIME)
                at += np.uintp(1)
            words.hashes[n] = np.int32(np.uint32(h))
            words.keys[n] = max(key, np.uint64(1))
            words.starts[n] = np.int64(start)
            words.sizes[n] = np.int32(at - start)
            if data[start] == _LABEL[0] and _begins_as_label(data, start, at):
                words.sizes[n] |= np.int32(LABEL_SIGN)
            n += 1
            if key == END_KEY:
                break
        if n > words.firsts[text] and words.keys[n - 1] != END_KEY:
            words.hashes[n], words.keys[n], words.starts[n], words.sizes[n] = _END_HASH, END_KEY, 0, 0
            n += 1
        words.firsts[text + 1] = n
    return n


@inlined
def hashed(h: Any, byte: Any) -> Any:
    """One step of the library's hash: bytes above 127 count as negative numbers. The lower 32 bits matter."""
    return (h ^ np.uint64(np.int64(np.int8(byte)))) * np.uint64(_FNV_32_PRIME)


@compiled
def _begins_as_label(data: npt.NDArray[np.uint8], start: Any, end: Any) -> bool:
    if end - start < _LABEL.size:
        return False
    for i in range(_LABEL.size):
        if data[start + np.uintp(i)] != _LABEL[i]:
            return False
    return True
