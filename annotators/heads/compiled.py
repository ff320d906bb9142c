"""The network of a head, compiled by numba, which takes half a second to import; only scoring needs it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.compilation import compiled, inlined


class Head(NamedTuple):
    """A head: logits = skip · x + second · relu(first · x + first_bias) + bias."""

    first: npt.NDArray[np.float32]
    """float32 [hidden, dim]."""
    first_bias: npt.NDArray[np.float32]
    second: npt.NDArray[np.float32]
    """float32 [labels, hidden]."""
    skip: npt.NDArray[np.float32]
    """float32 [labels, dim]."""
    bias: npt.NDArray[np.float32]
    """float32 [labels]."""


@compiled
def apply_head(vectors: npt.NDArray[np.float32], head: Head, logits: npt.NDArray[np.float32]) -> None:
    """Fill `logits` (float32 [texts, labels]) from `vectors` (float32 [texts, dim]), a text at a time."""
    first, first_bias, second, skip, bias = head.first, head.first_bias, head.second, head.skip, head.bias
    hidden = np.empty(first.shape[0], np.float32)
    for text in range(vectors.shape[0]):
        x = vectors[text]
        for unit in range(hidden.size):
            hidden[unit] = max(_dot(first[unit], x) + first_bias[unit], np.float32(0))
        for label in range(logits.shape[1]):
            logits[text, label] = _dot(skip[label], x) + _dot(second[label], hidden) + bias[label]


@inlined
def _dot(weights: Any, x: Any) -> Any:
    total = np.float32(0)
    for i in range(x.size):
        total += weights[i] * x[i]
    return total
