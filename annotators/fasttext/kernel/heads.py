"""The last function of a fastText model, from logits to probabilities, for each loss.

Each computes what the library does (`loss.cc` of fastText 0.9), without the 1e-5 that it adds to each probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.last_functions import (
    MAX_INPUT,
    STEPS,
    descend_trees,
    step_sigmoids,
)
from colophon.annotators.fasttext.kernel.compiled.structures import Doubles, Floats


def softmax(logits: Doubles) -> Floats:
    """Probabilities float32 [rows, labels] from logits float64 [rows, labels]; a row of NaN or infinities is NaN."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def stepped_sigmoid(logits: Floats) -> Floats:
    """The library's sigmoid, a table of 512 steps between -8 and 8, for one-versus-all; float32 [rows, labels]."""
    probabilities = np.empty(logits.shape, np.float32)
    step_sigmoids(np.ascontiguousarray(logits), _sigmoid_table(), probabilities)
    return probabilities


class Tree(NamedTuple):
    """The Huffman tree of hierarchical softmax. Nodes below the number of labels are leaves; the last is the root."""

    left: npt.NDArray[np.int64]
    """int64 [labels - 1]: the left child of node labels + i, which turns by logit i."""
    right: npt.NDArray[np.int64]


def huffman_tree(counts: Sequence[int]) -> Tree:
    """The tree that the library builds from the labels' counts, which are in descending order.

    The two lightest nodes get a parent until one is left: counts 5, 2, 1 give the parent 3 of the last two, then 8.
    """
    num_labels = len(counts)
    weights = [*counts, *[10**15] * (num_labels - 1)]
    all_children = []
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
        all_children.append(children)
    left, right = np.array(all_children, np.int64).reshape(-1, 2).T
    return Tree(np.ascontiguousarray(left), np.ascontiguousarray(right))


def hierarchical(logits: Doubles | Floats, tree: Tree) -> Floats:
    """float32 [rows, labels]: the product of the probabilities of all turns on the path to each label, plus 1e-5 each.

    `logits` is [rows, labels]; its last column is unused. The library adds 1e-5 to the probability of each turn before
    its logarithm, so that a label may have a little more than 1.
    """
    probabilities = np.empty(logits.shape, np.float32)
    scores = np.empty(2 * logits.shape[1] - 1, np.float32)
    descend_trees(np.ascontiguousarray(logits, np.float32), *tree, scores, probabilities)
    return probabilities


@cache
def _sigmoid_table() -> Floats:
    x = (np.arange(STEPS + 1) * 2 * MAX_INPUT).astype(np.float32) / np.float32(STEPS) - np.float32(MAX_INPUT)
    return np.asarray(1.0 / (1.0 + np.exp(-x).astype(np.float64)), np.float32)
