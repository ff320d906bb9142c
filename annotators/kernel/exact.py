"""The library's own arithmetic for a few texts: rows added one after the other in float32, in the library's order.

One-versus-all models look their sigmoid up in a table of steps, so a number that lies next to a step has to be rounded
as the library rounds it; and over some ten thousand rows the rounding of a float32 sum shows by itself. That takes
whole rows of the input matrix; hence only where it matters.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from annotators.fasttext_file import FastTextLayout
from annotators.kernel.compiled import Floats, Shape, Tables, Words, add_rows, dots, find_features
from annotators.kernel.matrices import Matrix

_CHUNK_ROWS = 4096


def logits_as_the_library(
    words: Words,
    texts: npt.NDArray[np.int64],
    *,
    counts: npt.NDArray[np.int64],
    layout: FastTextLayout,
    tables: Tables,
    shape: Shape,
) -> Floats:
    """float32 [len(texts), labels] for some of the texts of `words`; `counts` is how many rows each of all sums.

    Cost: that of the library, about 10 MB of text a second; reads rows of the model file, which stay in no process.
    """
    inputs = Matrix(path=layout.path, place=layout.inputs)
    output = Matrix(path=layout.path, place=layout.outputs).rows(slice(None))
    output = np.require(output, requirements=["A", "C"])
    logits = np.empty((len(texts), len(output)), np.float32)
    for row, text in zip(logits, texts, strict=True):
        features = np.empty(counts[text], np.int64)
        find_features(words, text, tables, shape, features)
        dots(_mean(inputs, features), output, row)
    return logits


def _mean(inputs: Matrix, features: npt.NDArray[np.int64]) -> Floats:
    total = np.zeros(inputs.shape[1], np.float32)
    mapped = inputs.mapped()
    if mapped is not None:
        add_rows(mapped, features, total)
    else:
        for start in range(0, len(features), _CHUNK_ROWS):
            chunk = inputs.rows(features[start : start + _CHUNK_ROWS])
            add_rows(chunk, np.arange(len(chunk)), total)
    return cast(Floats, total * np.float32(1.0 / len(features)))
