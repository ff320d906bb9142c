"""Documents as rows of a batch: of about one length, padded behind, where causal attention never looks; and the model
that stands for what was there before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray


def padded_batches(
    rows: Sequence[NumPyArray], *, max_size: int, cost: int = 1
) -> Iterator[tuple[NumPyArray, Tensor, Tensor]]:
    """Rows of ids in batches, longest first, so that a run which has too much to ask of memory fails at once.

    Args:
        rows: int64 [length] each, at least one id.
        max_size: of a batch: b x L^cost; a single row has what it needs.
        cost: 1: memory grows with the length of a row; 2: with its square.

    Yields:
        Which rows they are, int64 [b]; their ids int64 [b, L], 0 behind a row's end; their lengths int64 [b].
    """
    lengths = np.array([len(row) for row in rows], np.int64)
    order, start = np.argsort(-lengths, kind="stable"), 0
    while start < len(order):
        longest = int(lengths[order[start]])
        batch = order[start : start + max(1, max_size // longest**cost)]
        input_ids = np.zeros((len(batch), longest), np.int64)
        for padded, number in zip(input_ids, batch, strict=True):
            padded[: lengths[number]] = rows[number]
        yield batch, torch.from_numpy(input_ids), torch.from_numpy(lengths[batch])
        start += len(batch)
