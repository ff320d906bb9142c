"""Everything that numba compiles here: the forest of documents that share keys, and each cluster's best document."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.compilation import compiled, inlined


@inlined
def _root(parents: Any, document: Any) -> Any:
    while parents[document] != document:
        parents[document] = parents[parents[document]]  # halves the path of the next search
        document = parents[document]
    return document


@compiled
def link_equal(parents: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64], documents: npt.NDArray[np.int64]) -> None:
    """Join the trees of documents with equal keys; `keys` are sorted. A root is the first document of its tree.

    So the trees do not depend on the order in which documents are linked, except for their shape.

    Args:
        parents: int64 [documents]: each document's parent, itself for a root.
        keys: uint64 [pairs].
        documents: int64 [pairs].
    """
    for pair in range(1, keys.size):
        if keys[pair] == keys[pair - 1]:
            one, other = _root(parents, documents[pair]), _root(parents, documents[pair - 1])
            parents[max(one, other)] = min(one, other)


@compiled
def flatten(parents: npt.NDArray[np.int64]) -> None:
    """Make each document's root its parent. A parent comes before its child, so one pass is enough."""
    for document in range(parents.size):
        parents[document] = parents[parents[document]]


@compiled
def keep_best(
    clusters: npt.NDArray[np.int64],
    ranks: npt.NDArray[np.float64],
    first: int,
    best_ranks: npt.NDArray[np.float64],
    best: npt.NDArray[np.int64],
) -> None:
    """Update the best document of each cluster: that of the highest rank, of equals the first.

    Args:
        clusters: int64 [documents]: the cluster of each, -1 for none.
        ranks: float64 [documents].
        first: the number of the first document.
        best_ranks: float64 [clusters].
        best: int64 [clusters]: the best document so far, -1 before the first.
    """
    for row in range(clusters.size):
        cluster = clusters[row]
        if cluster >= 0 and (best[cluster] < 0 or ranks[row] > best_ranks[cluster]):
            best[cluster], best_ranks[cluster] = first + row, ranks[row]
