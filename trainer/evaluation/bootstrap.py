"""Ratios of sums over documents, and how far they would move with other documents: the bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from colophon.shards.common.arrays import NumPyArray

_BLOCK = 1 << 22  # counts that are in memory at once
_TAILS = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A number of a sample of documents, with its 95 % interval."""

    value: float
    low: float | None
    """None where the sample is one document, which tells nothing of others."""
    high: float | None


class RatioDraws:
    """Ratios of sums over documents, in the sample itself and in samples drawn from it with replacement.

    All ratios are of the same draws, so that differences between them are paired: what is hard about a document is
    hard for every model, and leaves the difference.
    """

    def __init__(self, amounts: NumPyArray, sizes: NumPyArray, *, seed: int, num_resamples: int = 1000) -> None:
        """Draw the samples. Costs num_resamples x n x (k + s) operations.

        Args:
            amounts: [k, n], such as nats of each document under each of k conditions.
            sizes: [s, n], such as tokens and bytes of each document.
            seed: of the draws.
            num_resamples: samples to draw.
        """
        self._num_documents = amounts.shape[1]
        columns = np.concatenate([amounts, sizes]).astype(np.float64).T
        sums = [columns.sum(axis=0, keepdims=True)]
        random, left = np.random.default_rng(seed), num_resamples
        evenly = np.full(self._num_documents, 1 / self._num_documents)
        while left:
            block = min(left, max(1, _BLOCK // self._num_documents))
            sums.append(random.multinomial(self._num_documents, evenly, size=block) @ columns)
            left -= block
        found = np.concatenate(sums)
        self._amounts, self._sizes = found[:, : len(amounts)], found[:, len(amounts) :]

    def ratio(self, amount: int, size: int) -> Estimate:
        """Sum of one amount divided by the sum of one size."""
        return self._estimate(self._amounts[:, amount] / self._sizes[:, size])

    def difference(self, amount: int, other: int, size: int) -> Estimate:
        """The ratio of one amount less that of another, in the same samples."""
        return self._estimate((self._amounts[:, amount] - self._amounts[:, other]) / self._sizes[:, size])

    def _estimate(self, draws: NumPyArray) -> Estimate:
        """From [1 + num_resamples] values, the sample's own first."""
        if self._num_documents == 1:
            return Estimate(float(draws[0]), None, None)
        low, high = np.percentile(draws[1:], _TAILS)
        return Estimate(float(draws[0]), float(low), float(high))
