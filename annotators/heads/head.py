"""A head: one classifier of a model, from the vectors of texts to the probabilities of its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from colophon.shards.common.arrays import NumPyArray

Floats = npt.NDArray[np.float32]


class HeadInfo(BaseModel):
    """One classifier of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    labels: tuple[str, ...] = Field(min_length=2)
    loss: Literal["softmax", "ova"]
    """`softmax`: one label a text; `ova`: any number of them, each with a probability of its own."""
    hidden: int = Field(ge=0, le=4096)
    """Units of the hidden layer."""

    @model_validator(mode="after")
    def _different_labels(self) -> HeadInfo:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ")
        return self


def head_tensors(heads: Sequence[HeadInfo], dim: int) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """The dtype and the shape of the tensors of heads that read vectors of `dim` numbers: see `compiled.Head`."""
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {}
    for number, head in enumerate(heads):
        shapes = {
            "first": (head.hidden, dim),
            "first_bias": (head.hidden,),
            "second": (len(head.labels), head.hidden),
            "skip": (len(head.labels), dim),
            "bias": (len(head.labels),),
        }
        expected |= {f"heads.{number}.{name}": (np.float32, shape) for name, shape in shapes.items()}
    return expected


def head_probabilities(
    vectors: Floats, heads: Sequence[HeadInfo], arrays: Mapping[str, NumPyArray], *, is_known: npt.NDArray[np.bool_]
) -> list[Floats]:
    """For each head float32 [texts, labels]; NaN for a text that is not known.

    A row depends on its own vector alone, bit by bit. A product of matrices by BLAS would give other last bits in other
    batches.

    Args:
        vectors: float32 [texts, dim], C-contiguous.
        heads: the heads.
        arrays: the tensors that `head_tensors` lists.
        is_known: bool [texts].
    """
    from colophon.annotators.heads.compiled import Head, apply_head

    found = []
    for number, head in enumerate(heads):
        logits = np.empty((len(vectors), len(head.labels)), np.float32)
        apply_head(vectors, Head(*(arrays[f"heads.{number}.{name}"] for name in Head._fields)), logits)
        found.append(_probabilities(logits, head, is_known=is_known))
    return found


def _probabilities(logits: Floats, head: HeadInfo, *, is_known: npt.NDArray[np.bool_]) -> Floats:
    values = logits.astype(np.float64)
    if head.loss == "ova":
        rows = 1 / (1 + np.exp(-values))
    else:
        rows = np.exp(values - values.max(axis=1, keepdims=True))
        rows /= rows.sum(axis=1, keepdims=True)
    rows[~is_known] = np.nan
    return rows.astype(np.float32)
