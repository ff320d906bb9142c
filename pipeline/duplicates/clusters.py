"""Clusters: documents that share a key, directly or through others, and the one of each that is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colophon.pipeline.duplicates.compiled import flatten, keep_best, link_equal
from colophon.pipeline.duplicates.key_ranges import RANGE_BYTES, KeyRanges
from colophon.pipeline.duplicates.keys import KeyFiles
from colophon.pipeline.storage.fault_injection import reached
from colophon.shards.common.arrays import NumPyArray


@dataclass(frozen=True)
class Clusters:
    """The clusters of two documents or more, numbered by their first documents."""

    of_document: NumPyArray
    """int64 [documents]: the cluster of each; -1 for a document without duplicates."""
    sizes: NumPyArray
    """int64 [clusters]."""
    kept: NumPyArray
    """int64 [clusters]: the number of the document that is kept."""

    @property
    def num_documents(self) -> int:
        """The documents in clusters."""
        return int(self.sizes.sum())


def find_clusters(
    files: KeyFiles, *, num_keys: int, ranked: bool, scratch: Path, range_bytes: int = RANGE_BYTES
) -> Clusters:
    """Cluster the documents of some files.

    The result is a function of the documents, their keys and ranks, and their order: not of how they were cut.
    Memory: 24 bytes a document, and a range of keys. Time: grows with the number of keys.

    Args:
        files: the keys.
        num_keys: the most keys of a document.
        ranked: whether a rank decides which is kept; else it is the first.
        scratch: an empty directory on a local disk, for 16 bytes a key.
        range_bytes: bytes of keys that are sorted at once.
    """
    parents = np.arange(files.num_documents)
    ranges = KeyRanges(scratch, num_pairs=len(parents) * num_keys, range_bytes=range_bytes)
    for keys, documents in files.pairs():
        ranges.add(keys, documents)
        reached("mid-write", "pairs")
    for keys, documents in ranges.sorted():
        link_equal(parents, keys, documents)
    flatten(parents)
    sizes = np.bincount(parents, minlength=len(parents))
    roots = np.flatnonzero(sizes > 1)
    sizes = sizes[roots]
    numbers = np.full(len(parents), -1)
    numbers[roots] = np.arange(len(roots))
    clusters = numbers[parents]
    return Clusters(clusters, sizes, _best(files, clusters, len(roots)) if ranked else roots)


def _best(files: KeyFiles, clusters: NumPyArray, num_clusters: int) -> NumPyArray:
    best, ranks_of_best = np.full(num_clusters, -1), np.full(num_clusters, -np.inf)
    for first, ranks in files.ranks():
        keep_best(clusters[first : first + len(ranks)], ranks, first, ranks_of_best, best)
    return best
