"""Ratios of sums over documents with bootstrap intervals: how much they would change with different documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from colophon.shards.common.arrays import NumPyArray

NUM_RESAMPLES = 1000
_BLOCK = 1 << 22  # counts that are in memory at once
_TAILS = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A number measured on a sample of documents, with its 95 % interval."""

    value: float
    low: float | None
    """None where the sample is one document or one group: nothing can be drawn from it."""
    high: float | None


def estimate_from(draws: NumPyArray, *, num_units: int) -> Estimate:
    """The estimate and its percentile interval.

    Args:
        draws: float64 [1 + num_resamples]; the sample's own value is first.
        num_units: documents or groups that were drawn with replacement. 1: there is no interval.
    """
    if num_units == 1:
        return Estimate(float(draws[0]), None, None)
    low, high = np.percentile(draws[1:], _TAILS)
    return Estimate(float(draws[0]), float(low), float(high))


class RatioDraws:
    """Ratios of sums over documents, in the sample itself and in samples drawn from it with replacement.

    All ratios use the same draws, so their differences are paired: a document that is hard for every model does not
    widen the interval of a difference.
    """

    def __init__(
        self, amounts: NumPyArray, sizes: NumPyArray, *, seed: int, num_resamples: int = NUM_RESAMPLES
    ) -> None:
        """Draw the samples. Costs num_resamples x n x (k + s) operations.

        Args:
            amounts: [k, n], such as nats of each document under each of k conditions.
            sizes: [s, n], such as tokens and bytes of each document.
            seed: the draws' random seed.
            num_resamples: samples to draw.
        """
        self._num_documents = amounts.shape[1]
        columns = np.concatenate([amounts, sizes]).astype(np.float64).T
        sums = [columns.sum(axis=0, keepdims=True)]
        random, left = np.random.default_rng(seed), num_resamples
        evenly = np.full(self._num_documents, 1 / self._num_documents)
        while left:
            block = min(left, max(1, _BLOCK // self._num_documents))
            # [block, n] counts, each row summing to n; times [n, k + s].
            sums.append(random.multinomial(self._num_documents, evenly, size=block) @ columns)
            left -= block
        found = np.concatenate(sums)
        self._amounts, self._sizes = found[:, : len(amounts)], found[:, len(amounts) :]

    def ratio(self, amount: int, size: int) -> Estimate:
        """Sum of one amount divided by the sum of one size."""
        return self._estimate(self._amounts[:, amount] / self._sizes[:, size])

    def difference(self, amount: int, other: int, size: int) -> Estimate:
        """The ratio of one amount minus that of another, in the same samples."""
        return self._estimate((self._amounts[:, amount] - self._amounts[:, other]) / self._sizes[:, size])

    def _estimate(self, draws: NumPyArray) -> Estimate:
        return estimate_from(draws, num_units=self._num_documents)
