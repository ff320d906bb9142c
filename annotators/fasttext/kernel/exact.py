"""The library's own arithmetic: rows of the input matrix added one after the other in float32, in the library's order.

Models with more labels than dimensions are scored so. For others it takes whole rows where scoring else takes a few
floats; so it is for single texts only. One-versus-all models look their sigmoid up in a table of steps, so a number
next to a step has to be rounded as the library rounds it; and over some ten thousand rows the rounding of a float32
sum shows by itself.
"""

from __future__ import annotations

import numpy as np

from colophon.annotators.fasttext.kernel.compiled import (
    Floats,
    Words,
    add_in_order,
    dots_in_order,
    list_rows,
    logits_in_order,
)
from colophon.annotators.fasttext.kernel.tables import Linear

_FEW_ROWS = 1024
_IN_ORDER = np.arange(_FEW_ROWS)


class ExactLogits:
    """The input matrix of a model file and its output matrix."""

    def __init__(self, linear: Linear) -> None:
        self._tables, self._shape, self._inputs = linear.tables, linear.shape, linear.inputs
        self._output = np.require(linear.outputs.rows(slice(None)), requirements=["A", "C"])
        mapped = linear.inputs.mapped()
        self._all_inputs = linear.decoded if mapped is None else mapped

    def of_all(self, words: Words) -> Floats:
        """float32 [texts, labels] for a model that is not collapsed; NaN for a text without words."""
        texts = np.arange(len(words.firsts) - 1)
        logits = np.empty((len(texts), len(self._output)), np.float32)
        logits_in_order(words, texts, self._tables, self._shape, self._all_inputs, self._output, logits)
        return logits

    def of_one(self, words: Words, text: int, *, num_rows: int) -> Floats:
        """float32 [labels] for one text that is the sum of so many rows.

        They are mapped for a moment: each brings 64 KB of its file with it, so that a few long texts would make all of
        it resident, for models whose point is that they are not.
        """
        rows = np.empty(num_rows, np.int64)
        list_rows(words, text, self._tables, self._shape, rows)
        total = np.zeros(self._inputs.shape[1], np.float32)
        for start in range(0, num_rows, _FEW_ROWS):
            few = self._inputs.rows(rows[start : start + _FEW_ROWS])
            add_in_order(few, _IN_ORDER[: len(few)], total)
        logits = np.empty(len(self._output), np.float32)
        dots_in_order(total, num_rows, self._output, logits)
        return logits
