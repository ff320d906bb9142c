"""Documents as padded batches of rows of similar length.

Padding is at the end of a row, where causal attention cannot see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray


def padded_batches(
    rows: Sequence[NumPyArray], *, max_size: int, cost: int = 1
) -> Iterator[tuple[NumPyArray, Tensor, Tensor]]:
    """Yield rows of ids in batches, the longest first, so that a run that needs too much memory fails at once.

    Args:
        rows: int64 [length] each, at least one id.
        max_size: largest b x L^cost of a batch; a single longer row is a batch of its own.
        cost: 1 where memory grows with the length of a row, 2 where it grows with its square.

    Yields:
        Numbers of the rows int64 [b]; their ids int64 [b, L], 0 after a row's end; their lengths int64 [b].
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
