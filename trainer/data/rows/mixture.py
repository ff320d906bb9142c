"""The samples of each update: the order of a source's rows, and the share of each source in a batch.

Both are functions of (seed, step) alone, so a run can start at any step, on any number of devices.

*Rows.* A source's samples are its epochs, joined. An epoch is a permutation of the source's rows by (seed, epoch); with
row weights, of a systematic sample of them: as many samples as rows, at equal distances along the cumulative weights,
so that a row of w times the mean weight is drawn w times, rounded up or down. With a curriculum, the first epochs go
through buckets of the score, each permuted.

*Shares.* Every global batch is such a sample of the sources: a source with the share p has p x batch_size samples in
it, rounded up or down by the batch's offset. The offsets are van der Corput's sequence (a step's bits in reverse), of
which any part is spread evenly; so rounding evens out: after s batches a source is at most log2(s) + 2 samples from its
share. Within a batch the sources follow each other: the order does not matter to an update.

Cost: a permutation an epoch; some tens of microseconds a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.config import CurriculumConfig

_ORDER_STREAM, _OFFSET_STREAM = 0, 2  # of random numbers under the run's seed; `trainer.data.held_out` has stream 1
_BITS = 32
_ONE = 1 << _BITS
_MEAN_WEIGHT = 1 << 30  # of rows, as integers, so that their sums are exact
_CACHED_EPOCHS = 2  # a batch may hold the end of one and the start of the next


def epoch_order(num_rows: int, *, seed: int, epoch: int, stream: int = 0) -> NumPyArray:
    """int64 [num_rows]: the permutation of one epoch. Sources of one run have different values of `stream`."""
    return np.random.default_rng([seed, _ORDER_STREAM, epoch, stream]).permutation(num_rows)


class RowOrder:
    """The order of the rows of one source, over all epochs."""

    def __init__(
        self,
        num_rows: int,
        *,
        seed: int,
        stream: int = 0,
        weights: NumPyArray | None = None,
        scores: NumPyArray | None = None,
        curriculum: CurriculumConfig | None = None,
    ) -> None:
        """An order of `num_rows` rows.

        Args:
            num_rows: at least 1.
            seed: of the run.
            stream: number of the source in the run.
            weights: float64 [num_rows], finite, not negative, not all 0. None: every row is drawn once an epoch.
            scores: float64 [num_rows], NaN where a row has none; required by `curriculum`.
            curriculum: None: every epoch is shuffled as a whole.
        """
        self._num_rows, self._seed, self._stream = num_rows, seed, stream
        self._cumulative = None if weights is None else np.cumsum(_as_integers(weights))
        self._scores, self._curriculum = scores, curriculum
        self._cache: dict[int, NumPyArray] = {}

    def rows(self, samples: NumPyArray) -> NumPyArray:
        """int64 [n]: the rows of samples int64 [n], which count from 0 over all epochs."""
        epochs, places = np.divmod(samples, self._num_rows)
        rows = np.empty(len(samples), np.int64)
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            rows[in_epoch] = self.epoch(int(epoch))[places[in_epoch]]
        return rows

    def epoch(self, epoch: int) -> NumPyArray:
        """int64 [num_rows]: the rows of one epoch, in order."""
        order = self._cache.get(epoch)
        if order is None:
            order = self._epoch(epoch)
            order.flags.writeable = False
            self._cache = dict([*self._cache.items(), (epoch, order)][-_CACHED_EPOCHS:])
        return order

    def _epoch(self, epoch: int) -> NumPyArray:
        if self._curriculum is not None and self._scores is not None and epoch < self._curriculum.epochs:
            return self._in_buckets(self._sample(epoch), self._scores, self._curriculum, epoch=epoch)
        order = epoch_order(self._num_rows, seed=self._seed, epoch=epoch, stream=self._stream)
        return order if self._cumulative is None else self._sample(epoch)[order]

    def _sample(self, epoch: int) -> NumPyArray:
        """int64 [num_rows], ascending: the rows of an epoch, with repetitions."""
        if self._cumulative is None:
            return np.arange(self._num_rows)
        # Offsets of successive epochs are spread evenly, so that a row of weight 1/2 is drawn in every second epoch.
        start = int(np.random.default_rng([self._seed, _OFFSET_STREAM, self._stream]).integers(_ONE))
        return systematic_sample(self._cumulative, offset=(start + reversed_bits(epoch)) % _ONE)

    def _in_buckets(
        self, rows: NumPyArray, scores: NumPyArray, curriculum: CurriculumConfig, *, epoch: int
    ) -> NumPyArray:
        keys = scores[rows] if curriculum.order == "ascending" else -scores[rows]  # NaN sorts last either way
        buckets = np.array_split(rows[np.argsort(keys, kind="stable")], min(curriculum.buckets, len(rows)))
        words = [self._seed, _ORDER_STREAM, epoch, self._stream]
        return np.concatenate([np.random.default_rng([*words, n]).permutation(b) for n, b in enumerate(buckets)])


def systematic_sample(cumulative: NumPyArray, *, offset: int) -> NumPyArray:
    """int64 [n], ascending: n of n rows, at equal distances along their cumulative weights int64 [n].

    Weights [3, 0, 1] have sums [3, 3, 4]; with offset 0 the points 0, 4/3 and 8/3 all fall on row 0, with offset 1/2
    the points 2/3, 2 and 10/3 on rows 0, 0 and 2.

    Args:
        cumulative: sums of integer weights; the last is less than 2^62.
        offset: of the first point, in units of 2^-32 of the distance.
    """
    num_rows, total = len(cumulative), int(cumulative[-1])
    each, rest = divmod(total, num_rows)
    k = np.arange(num_rows)
    points = k * each + (k * rest + (offset * total >> _BITS)) // num_rows  # (k + offset) total / n, without overflow
    return np.searchsorted(cumulative, points, side="right")


def _as_integers(weights: NumPyArray) -> NumPyArray:
    """int64 [n]: weights with a mean of about 2^30; equal weights stay equal."""
    relative = weights / weights.max()
    whole: NumPyArray = np.rint(relative * (_MEAN_WEIGHT / relative.mean())).astype(np.int64)
    return whole


class Shares:
    """The number of samples of each source in every batch."""

    def __init__(self, weights: Sequence[float], *, batch_size: int) -> None:
        """Shares in proportion to positive `weights`, one per source."""
        relative = np.asarray(weights, np.float64) / max(weights)
        bounds = np.cumsum(relative)
        self._bounds = np.rint(bounds / bounds[-1] * (batch_size * _ONE)).astype(np.int64)
        self.shares: list[float] = (relative / bounds[-1]).tolist()
        """The share of each source; they sum to 1."""

    def before(self, step: int) -> NumPyArray:
        """int64 [num_sources]: samples of each source in all batches before that of update `step` (from 1)."""
        whole, part = self._bounds >> _BITS, self._bounds & (_ONE - 1)
        return np.diff((step - 1) * whole + count_below(part, count=step - 1), prepend=0)

    def samples(self, step: int) -> list[tuple[int, int]]:
        """The samples (start, stop) of each source in the global batch of update `step` (from 1)."""
        starts = self.before(step)
        ends = (self._bounds >> _BITS) + (reversed_bits(step - 1) < self._bounds & (_ONE - 1))
        return list(zip(starts.tolist(), (starts + np.diff(ends, prepend=0)).tolist(), strict=True))


def reversed_bits(number: int) -> int:
    """The lowest 32 bits in reverse: van der Corput's sequence in base 2, in units of 2^-32."""
    return int(f"{number % _ONE:032b}"[::-1], 2)


def count_below(bounds: NumPyArray, *, count: int) -> NumPyArray:
    """int64 [n]: the number of the first `count` numbers of van der Corput's sequence below each of int64 [n] bounds.

    The first `count` numbers are runs of 2^k, one for each bit of `count`, and a run is spread at equal distances:
    of 6 numbers the first four are 0, 1/2, 1/4, 3/4 and the last two 1/8, 5/8.
    """
    below = np.zeros(len(bounds), np.int64)
    for bit in range(count.bit_length()):
        if count >> bit & 1:
            first, distance = reversed_bits(count >> (bit + 1) << (bit + 1)), 1 << (_BITS - bit)
            below += np.clip((bounds - first + distance - 1) // distance, 0, 1 << bit)
    return below
