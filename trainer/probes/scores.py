"""How well predictions do, and how sure that is."""

from __future__ import annotations

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.evaluation.bootstrap import Estimate

_NUM_RESAMPLES = 1000
_TAILS = (2.5, 97.5)


class ScoreDraws:
    """Accuracy and macro-F1 in the test documents and in samples drawn from them, whole groups at a time.

    Documents of a domain are alike: to draw documents one by one would make intervals too small. All scores are of the
    same draws, so that differences are paired. Macro-F1 is the mean of F1 = 2 hits / (documents of the class +
    predictions of it), 0 where both are none, over the classes that the test documents have, the same in every draw:
    over those of the draw alone, a constant guess would be perfect where one class was drawn.
    """

    def __init__(self, truth: NumPyArray, groups: NumPyArray, *, num_classes: int, seed: int) -> None:
        """Args: class int64 [n] and group int64 [n] of the test documents, how many classes there are, seed."""
        self._truth, self._num_classes = truth, num_classes
        _, self._groups = np.unique(groups, return_inverse=True)
        self._num_groups = int(self._groups.max()) + 1
        drawn = np.random.default_rng(seed).multinomial(
            self._num_groups, np.full(self._num_groups, 1 / self._num_groups), size=_NUM_RESAMPLES
        )
        self._weights = np.concatenate([np.ones((1, self._num_groups)), drawn])  # the sample itself first
        self._documents = self._counts(truth, np.ones(len(truth), bool))

    def accuracy(self, predicted: NumPyArray) -> NumPyArray:
        """float64 [1 + draws] of predictions int64 [n]."""
        hits = self._counts(self._truth, predicted == self._truth)
        accuracy: NumPyArray = hits.sum(axis=1) / self._documents.sum(axis=1)
        return accuracy

    def macro_f1(self, predicted: NumPyArray) -> NumPyArray:
        """float64 [1 + draws] of predictions int64 [n]."""
        hits = self._counts(self._truth, predicted == self._truth)
        predictions = self._counts(predicted, np.ones(len(predicted), bool))
        f1 = 2 * hits / np.maximum(self._documents + predictions, 1)  # without documents there are no hits
        mean: NumPyArray = f1[:, self._documents[0] > 0].mean(axis=1)
        return mean

    def estimate(self, draws: NumPyArray) -> Estimate:
        """The sample's own score with its 95 % interval; without one where all documents are one group."""
        if self._num_groups == 1:
            return Estimate(float(draws[0]), None, None)
        low, high = np.percentile(draws[1:], _TAILS)
        return Estimate(float(draws[0]), float(low), float(high))

    def _counts(self, classes: NumPyArray, counted: NumPyArray) -> NumPyArray:
        """float64 [1 + draws, num_classes]: how many of the counted documents each sample has of each class."""
        by_group = np.zeros((self._num_groups, self._num_classes))
        np.add.at(by_group, (self._groups[counted], classes[counted]), 1)
        counts: NumPyArray = self._weights @ by_group
        return counts
