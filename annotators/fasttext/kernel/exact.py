"""The library's own arithmetic: rows of the input matrix added one after the other in float32, in the library's order.

Models with more labels than dimensions are always scored in this way. For other models it reads whole rows instead of a
few floats, so it scores single texts only: those where the library's rounding is visible. A one-versus-all model looks
its sigmoid up in a table of steps, so a number next to a step must be rounded as the library rounds it; and over some
ten thousand rows the rounding of a float32 sum is visible by itself.
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
from colophon.annotators.fasttext.kernel.tables import LinearModel

_FEW_ROWS = 1024
_IN_ORDER = np.arange(_FEW_ROWS)


class ExactLogits:
    """Logits from the input matrix and the output matrix of a model file."""

    def __init__(self, model: LinearModel) -> None:
        self._tables, self._shape, self._inputs = model.tables, model.shape, model.inputs
        self._output = np.require(model.outputs.rows(slice(None)), requirements=["A", "C"])
        mapped = model.inputs.mapped()
        self._all_inputs = model.decoded if mapped is None else mapped

    def for_texts(self, words: Words) -> Floats:
        """float32 [texts, labels] for a model that is not collapsed; NaN for a text without words."""
        texts = np.arange(len(words.firsts) - 1)
        logits = np.empty((len(texts), len(self._output)), np.float32)
        logits_in_order(words, texts, self._tables, self._shape, self._all_inputs, self._output, logits)
        return logits

    def for_text(self, words: Words, text: int, *, num_rows: int) -> Floats:
        """float32 [labels] for one text that is the sum of `num_rows` rows.

        The rows are mapped only while they are added. Each makes 64 KB of the file resident, so a few long texts would
        make the whole file resident, which collapsed models avoid.
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
