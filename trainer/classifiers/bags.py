"""Texts as bags of rows, and the batches of a training: crops of texts without the n-grams that dropout leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray


@dataclass(frozen=True, kw_only=True)
class Bags:
    """The rows of the n-grams of texts."""

    rows: npt.NDArray[np.int32]
    """int32 [tokens, ngrams]: the rows of the n-grams that end with each token; -1 where the text begins within one."""
    firsts: npt.NDArray[np.int64]
    """int64 [texts + 1]: the number of tokens before each text."""
    num_rows: int
    """Rows of the table that they index."""

    def __len__(self) -> int:
        return len(self.firsts) - 1

    def batch(
        self, texts: NumPyArray, *, crop: int, word_dropout: float, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """The rows of a random part of each of these texts, of up to `crop` tokens, one text after the other.

        Returns int64 [n] rows, and int64 [texts + 1] where each text begins in them.
        """
        starts, lengths = self.firsts[texts], self.firsts[texts + 1] - self.firsts[texts]
        kept = np.minimum(lengths, crop)
        starts = starts + (random.random(len(texts)) * (lengths - kept + 1)).astype(np.int64)
        # lengths [2, 3] from starts [7, 20] -> tokens [7, 8, 20, 21, 22]
        ends = np.cumsum(kept)
        tokens = np.arange(ends[-1]) + np.repeat(starts - (ends - kept), kept)
        rows = self.rows[tokens]
        is_kept = rows >= 0
        if word_dropout:
            is_kept &= random.random(rows.shape, dtype=np.float32) >= word_dropout
        counts = np.concatenate([[0], np.cumsum(is_kept.sum(axis=1))])
        firsts = counts[np.concatenate([[0], ends])]
        return torch.from_numpy(rows[is_kept].astype(np.int64)), torch.from_numpy(firsts)
