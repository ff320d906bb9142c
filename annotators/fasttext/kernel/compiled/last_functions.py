"""The library's sigmoid and its tree of sigmoids, in its own float32 arithmetic (`loss.cc` of fastText 0.9)."""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.compilation import compiled, inlined
from colophon.annotators.fasttext.kernel.compiled.structures import Floats

MAX_INPUT = 8
STEPS = 512


@compiled
def step_sigmoids(logits: Floats, sigmoids: Floats, probabilities: Floats) -> None:
    """Fill `probabilities` (float32 [texts, labels]) by the table `sigmoids`, whose steps are from -8 to 8."""
    size, low, high = np.float32(STEPS), np.float32(-MAX_INPUT), np.float32(MAX_INPUT)
    for text in range(probabilities.shape[0]):
        for label in range(probabilities.shape[1]):
            logit = logits[text, label]
            if np.isnan(logit):
                probabilities[text, label] = logit
            elif logit < low:
                probabilities[text, label] = np.float32(0)
            elif logit > high:
                probabilities[text, label] = np.float32(1)
            else:
                probabilities[text, label] = sigmoids[np.int64((logit + high) * size / high / np.float32(2))]


@compiled
def descend_trees(
    logits: Floats,
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    scores: Floats,
    probabilities: Floats,
) -> None:
    """Fill `probabilities` (float32 [texts, labels]) with the product of the probabilities of the turns to each label.

    Node labels + i turns by logit i. The library adds the logarithms of the turns' probabilities plus 1e-5; so does
    this. `scores` (float32 [2 * labels - 1]) is scratch.
    """
    num_labels = probabilities.shape[1]
    for text in range(probabilities.shape[0]):
        scores[2 * num_labels - 2] = np.float32(0)
        for node in range(2 * num_labels - 2, num_labels - 1, -1):  # a node's number is above those of its children
            to_the_right = np.float32(
                1.0 / np.float64(np.float32(1) + np.float32(exp(-logits[text, node - num_labels])))
            )
            to_the_left = np.float32(1.0 - np.float64(to_the_right))
            scores[left[node - num_labels]] = scores[node] + _logarithm(to_the_left)
            scores[right[node - num_labels]] = scores[node] + _logarithm(to_the_right)
        for label in range(num_labels):
            probabilities[text, label] = np.float32(exp(scores[label]))


@inlined
def _logarithm(probability: Any) -> Any:
    return np.float32(log(np.float64(probability) + 1e-5))
