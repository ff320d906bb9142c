"""Scores of predictions, with bootstrap intervals."""

from __future__ import annotations

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.evaluation.bootstrap import NUM_RESAMPLES, Estimate, estimate_from


class ScoreDraws:
    """Accuracy and macro-F1 in the test documents and in samples drawn from them, whole groups at a time.

    Documents of a domain are similar, so drawing documents one by one would make intervals too small. All scores use
    the same draws, so their differences are paired.

    Macro-F1 is the mean over classes of F1 = 2 hits / (documents of the class + predictions of it), 0 where both are 0.
    Every draw counts all classes of the test documents: counting only the classes that were drawn would make a constant
    prediction perfect where one class was drawn.
    """

    def __init__(self, truth: NumPyArray, groups: NumPyArray, *, num_classes: int, seed: int) -> None:
        """Draw the samples.

        Args:
            truth: int64 [n], classes of the test documents.
            groups: int64 [n], their groups.
            num_classes: number of classes, also of those without test documents.
            seed: the draws' random seed.
        """
        self._truth, self._num_classes = truth, num_classes
        _, self._groups = np.unique(groups, return_inverse=True)
        self._num_groups = int(self._groups.max()) + 1
        drawn = np.random.default_rng(seed).multinomial(
            self._num_groups, np.full(self._num_groups, 1 / self._num_groups), size=NUM_RESAMPLES
        )
        self._weights = np.concatenate([np.ones((1, self._num_groups)), drawn])  # the sample itself is first
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
        f1 = 2 * hits / np.maximum(self._documents + predictions, 1)  # hits are 0 where the denominator is
        mean: NumPyArray = f1[:, self._documents[0] > 0].mean(axis=1)
        return mean

    def estimate(self, draws: NumPyArray) -> Estimate:
        """The sample's own score with its 95 % interval; without an interval where all documents are one group."""
        return estimate_from(draws, num_units=self._num_groups)

    def _counts(self, classes: NumPyArray, counted: NumPyArray) -> NumPyArray:
        """float64 [1 + draws, num_classes]: number of the counted documents of each class in each sample."""
        by_group = np.zeros((self._num_groups, self._num_classes))
        np.add.at(by_group, (self._groups[counted], classes[counted]), 1)
        counts: NumPyArray = self._weights @ by_group
        return counts
