"""Pairs of a key and a document on disk, by ranges of keys: each range fits into memory, and is sorted by itself.

Cost: 16 bytes a pair are written and read once, whatever their number; a range takes about three times its size in
memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from colophon.shards.common.arrays import NumPyArray

RANGE_BYTES = 256 << 20
_MOST_RANGES = 1 << 9
"""Files that are open at once."""
_PAIR = np.dtype([("key", np.uint64), ("document", np.int64)])


class KeyRanges:
    """Pairs in a directory; keys are spread evenly, as those of hashes are."""

    def __init__(self, directory: Path, *, num_pairs: int, range_bytes: int = RANGE_BYTES) -> None:
        """Begin the files of as many ranges, a power of 2, as hold `num_pairs` pairs in `range_bytes` each."""
        wanted = -(-num_pairs * _PAIR.itemsize // range_bytes)
        self._bits = min(max(wanted - 1, 0).bit_length(), _MOST_RANGES.bit_length() - 1)
        self._paths = [directory / f"{number:03d}" for number in range(1 << self._bits)]
        self._files = [path.open("wb") for path in self._paths]

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, keys: NumPyArray, documents: NumPyArray) -> None:
        """Append pairs: uint64 [pairs], int64 [pairs]."""
        pairs = np.empty(len(keys), _PAIR)
        pairs["key"], pairs["document"] = keys, documents
        if not self._bits:
            self._files[0].write(pairs.tobytes())
            return
        numbers = (keys >> np.uint64(64 - self._bits)).astype(np.int64)
        pairs = pairs[np.argsort(numbers, kind="stable")]
        ends = np.cumsum(np.bincount(numbers, minlength=len(self)))
        for file, begin, end in zip(self._files, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            if end > begin:
                file.write(pairs[begin:end].tobytes())

    def sorted(self) -> Iterator[tuple[NumPyArray, NumPyArray]]:
        """The pairs of each range by key: uint64 [pairs], int64 [pairs]. No more can be added."""
        for file in self._files:
            file.close()
        for path in self._paths:
            pairs = np.fromfile(path, _PAIR)
            order = np.argsort(pairs["key"])
            yield pairs["key"][order], pairs["document"][order]
