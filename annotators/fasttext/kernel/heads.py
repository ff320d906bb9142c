"""The last function of a fastText model, from logits to probabilities, for each loss.

Each computes what the library does (`loss.cc` of fastText 0.9), without the 1e-5 that it adds before its logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled import Doubles, Floats

_MAX_INPUT = 8
_STEPS = 512


def softmax(logits: Doubles) -> Floats:
    """Probabilities float32 [rows, labels] from logits float64 [rows, labels]; a row of NaN stays NaN."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def stepped_sigmoid(logits: Doubles) -> Floats:
    """The library's sigmoid, a table of 512 steps between -8 and 8, for one-versus-all; float32 [rows, labels]."""
    clipped = np.clip(logits, -_MAX_INPUT, _MAX_INPUT).astype(np.float32)
    steps = _position(clipped)
    unknown = np.isnan(steps)
    found = _sigmoid_table()[np.where(unknown, 0, steps).astype(np.int64)]
    found = np.where(logits > _MAX_INPUT, 1, np.where(logits < -_MAX_INPUT, 0, found))
    return np.where(unknown, np.nan, found).astype(np.float32)


def near_a_step(logits: Doubles, within: Doubles) -> npt.NDArray[np.bool_]:
    """bool [rows, labels]: whether `stepped_sigmoid` has a different value at a distance of at most `within`."""
    position = _position(np.clip(logits, -_MAX_INPUT - 1, _MAX_INPUT + 1))
    inside = np.abs(logits) <= _MAX_INPUT + within
    return np.asarray(inside & (np.abs(position - np.rint(position)) <= within * _STEPS / (2 * _MAX_INPUT)))


class Tree(NamedTuple):
    """The Huffman tree of hierarchical softmax, as the path of nodes to each label."""

    nodes: npt.NDArray[np.int64]
    """int64 [labels, depth]: rows of the output matrix on the path to each label, -1 past its end."""
    to_the_right: npt.NDArray[np.bool_]
    """bool [labels, depth]: whether the path turns right at that node."""


def huffman_tree(counts: Sequence[int]) -> Tree:
    """The tree that the library builds from the labels' counts, which are in descending order.

    The two lightest nodes get a parent until one is left: counts 5, 2, 1 give the parent 3 of the last two, then 8.
    """
    num_labels = len(counts)
    weights = [*counts, *[10**15] * (num_labels - 1)]
    parents, is_right = [-1] * (2 * num_labels - 1), [False] * (2 * num_labels - 1)
    leaf, node = num_labels - 1, num_labels
    for parent in range(num_labels, 2 * num_labels - 1):
        children = []
        for _ in range(2):
            if leaf >= 0 and weights[leaf] < weights[node]:
                children.append(leaf)
                leaf -= 1
            else:
                children.append(node)
                node += 1
        weights[parent] = weights[children[0]] + weights[children[1]]
        for child in children:
            parents[child] = parent
        is_right[children[1]] = True
    paths = [_path(label, parents) for label in range(num_labels)]
    depth = max(map(len, paths))
    nodes = np.full((num_labels, depth), -1)
    right = np.zeros((num_labels, depth), bool)
    for label, path in enumerate(paths):
        nodes[label, : len(path)] = [parents[step] - num_labels for step in path]
        right[label, : len(path)] = [is_right[step] for step in path]
    return Tree(nodes, right)


def hierarchical(logits: Doubles, tree: Tree, *, offset: float = 0.0) -> Floats:
    """float32 [rows, labels]: the product of the probabilities of all turns on the path to each label.

    `logits` is float64 [rows, labels]; its last column is unused. The library adds an `offset` of 1e-5 to each turn's
    probability.
    """
    right = 1 / (1 + np.exp(-logits))
    product = np.ones((len(logits), len(tree.nodes)))
    for nodes, to_the_right in zip(tree.nodes.T, tree.to_the_right.T, strict=True):
        turn = np.where(to_the_right, right[:, nodes], 1 - right[:, nodes])
        product *= np.where(nodes < 0, 1.0, turn + offset)
    return product.astype(np.float32)


def _path(label: int, parents: Sequence[int]) -> list[int]:
    path = []
    while parents[label] >= 0:
        path.append(label)
        label = parents[label]
    return path


def _position(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The position in the table of steps; a fraction is between two steps. 0.0 gives 256."""
    number = logits.dtype.type
    return np.asarray((logits + number(_MAX_INPUT)) * number(_STEPS) / number(2 * _MAX_INPUT))


@cache
def _sigmoid_table() -> Floats:
    x = (np.arange(_STEPS + 1) * 2 * _MAX_INPUT).astype(np.float32) / np.float32(_STEPS) - np.float32(_MAX_INPUT)
    return np.asarray(1.0 / (1.0 + np.exp(-x).astype(np.float64)), np.float32)
