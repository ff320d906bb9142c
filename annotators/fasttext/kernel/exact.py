"""Logits in the library's own arithmetic: see `compiled.in_order`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.in_order import logits_in_order
from colophon.annotators.fasttext.kernel.compiled.structures import Floats, Words
from colophon.annotators.fasttext.kernel.tables import LinearModel


class ExactLogits:
    """Logits from the input matrix and the output matrix of a model file, which are memory-mapped."""

    def __init__(self, model: LinearModel, *, often: bool) -> None:
        """`often`: for all texts, not for a few; see `Matrix.as_inputs`."""
        self._tables, self._shape = model.tables, model.shape
        self._inputs, self._outputs = model.inputs.as_inputs(often=often), model.outputs.as_outputs()
        self._num_labels = model.outputs.shape[0]

    def __call__(self, words: Words, texts: npt.NDArray[np.int64]) -> Floats:
        """float32 [texts, labels] for some texts of `words`; NaN for a text without words."""
        logits = np.empty((len(texts), self._outputs.factors.size), np.float32)
        logits_in_order(words, texts, self._tables, self._shape, self._inputs, self._outputs, logits)
        return logits[:, : self._num_labels]
