"""The library's own arithmetic: rows of the input matrix added one after the other in float32, in the library's order.

Models with more labels than dimensions are scored so. For others it takes whole rows where scoring else takes a few
floats; so it is for single texts only. One-versus-all models look their sigmoid up in a table of steps, so a number
next to a step has to be rounded as the library rounds it; and over some ten thousand rows the rounding of a float32
sum shows by itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from annotators.fasttext_file import FastTextLayout
from annotators.kernel.compiled import Floats, Words, logits_in_order
from annotators.kernel.matrices import Matrix
from annotators.kernel.tables import Linear


class ExactLogits:
    """The model file's input matrix, mapped (its pages belong to no process), and its output matrix."""

    def __init__(self, layout: FastTextLayout, linear: Linear) -> None:
        mapped = Matrix(path=layout.path, place=layout.inputs).mapped()
        self._inputs = linear.decoded if mapped is None else mapped
        output = Matrix(path=layout.path, place=layout.outputs).rows(slice(None))
        self._output = np.require(output, requirements=["A", "C"])
        self._linear = linear

    def __call__(self, words: Words, texts: npt.NDArray[np.int64]) -> Floats:
        """float32 [len(texts), labels] for some of the texts of `words`; NaN for one without words."""
        logits = np.empty((len(texts), len(self._output)), np.float32)
        tables, shape, _ = self._linear
        logits_in_order(words, texts, tables, shape, self._inputs, self._output, logits)
        return logits
