"""The order of text in a training with `order = "documents"`: which positions of the line each update trains on.

An epoch is a permutation by (seed, epoch) of blocks of whole documents, one for about each `sequence_length` tokens of
text. The epochs, joined, are the stream. Update `step` trains on its tokens from (step - 1) x n to before step x n,
with n = batch_size x sequence_length. All of this follows from the documents and their lengths, nothing from a layout:
every layout of a run trains on the same n text tokens in the same update.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.data.rows.mixture import epoch_order

_CACHED_EPOCHS = 2


class DocumentOrder:
    """The stream of a line's blocks over all epochs."""

    def __init__(self, blocks: NumPyArray, *, num_tokens: int, seed: int) -> None:
        """An order of blocks.

        Args:
            blocks: int64 [num_blocks], ascending from 0: the position of each block's first token.
            num_tokens: of the line, at least 1.
            seed: of the run.
        """
        self._blocks, self.num_tokens, self._seed = blocks, num_tokens, seed
        self._lengths = np.diff(blocks, append=num_tokens)
        self._cache: dict[int, tuple[NumPyArray, NumPyArray]] = {}

    def intervals(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the positions (from, to before) of the stream's tokens from `first` to before `last`, block by block.

        Blocks of 3, 2 and 4 tokens in the order 2, 0, 1 are the stream 5 6 7 8 0 1 2 3 4; its tokens 2 to 7 are the
        positions 7 to 9 and 0 to 3.
        """
        while first < last:
            epoch, place = divmod(first, self.num_tokens)
            stop = min(last - epoch * self.num_tokens, self.num_tokens)
            yield from self._in_epoch(epoch, place, stop)
            first = epoch * self.num_tokens + stop

    def _in_epoch(self, epoch: int, first: int, last: int) -> Iterator[tuple[int, int]]:
        order, ends = self._epoch(epoch)
        begin, end = np.searchsorted(ends, [first, last - 1], side="right").tolist()
        for place in range(begin, end + 1):
            block, stream_end = int(order[place]), int(ends[place])
            stream_start = stream_end - int(self._lengths[block])
            offset = int(self._blocks[block]) - stream_start
            yield max(first, stream_start) + offset, min(last, stream_end) + offset

    def _epoch(self, epoch: int) -> tuple[NumPyArray, NumPyArray]:
        """The blocks of an epoch in order, and the place in the epoch after each, int64 [num_blocks]."""
        found = self._cache.get(epoch)
        if found is None:
            order = epoch_order(len(self._blocks), seed=self._seed, epoch=epoch)
            found = order, np.cumsum(self._lengths[order])
            self._cache = dict([*self._cache.items(), (epoch, found)][-_CACHED_EPOCHS:])
        return found
