"""The columns that a score rule writes: a score, and a label or a bin; the quantiles of bins are fitted on a sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.score_rules import Bins, Floats, ScoreFunction, ScoreRule, ascending


def check_score_settings(score: ScoreRule | None, clip: tuple[float, float] | None, bins: Bins | None) -> None:
    """Check that the settings of a score fit together; without a rule the score is that of the most probable label.

    Raises:
        ValueError: they do not.
    """
    if clip is not None and not ascending(clip):
        raise ValueError(f"clip must be [lowest, highest], got {list(clip)}")
    if bins is not None and (score is None or score.argmax):
        raise ValueError("bins need a score; argmax already gives a label")


@dataclass(frozen=True, kw_only=True)
class ScoreColumns:
    """The columns of one classifier's score.

    Under the name NAME:
      - with `argmax`: `NAME` (string, the renamed label) and `NAME_score` (float32, its probability);
      - otherwise `NAME_score` (float32) and, with bins, `NAME` (string if the bins have labels, otherwise int16).
    """

    name: str
    rule: ScoreRule
    labels: Sequence[str]
    """The model's labels."""
    loss: str
    """See `ScoreRule.for_labels`."""
    where: str
    """The annotator's place in errors: `annotators.quality`."""
    clip: tuple[float, float] | None = None
    bins: Bins | None = None
    fitted_edges: tuple[float, ...] | None = None
    """The calibrated edges of quantile bins."""
    bins_filled: int | None = None
    """The number of quantile bins with documents of the sample."""

    @cached_property
    def _function(self) -> ScoreFunction:
        return self.rule.for_labels(self.labels, where=f"{self.where}.score", loss=self.loss)

    @cached_property
    def fields(self) -> list[pa.Field]:
        """The columns' names and types.

        Raises:
            AnnotatorError: the rule names a label that the model lacks.
        """
        fields = [pa.field(f"{self.name}_score", pa.float32())]
        if self._function.names is not None:
            fields.insert(0, pa.field(self.name, pa.string()))
        if self.bins is not None:
            fields.insert(0, pa.field(self.name, self.bins.type))
        return fields

    @property
    def edges(self) -> tuple[float, ...] | None:
        """The edges of the bins; None without bins, and for quantiles before they are fitted."""
        return self.fitted_edges if self.bins is None or self.bins.edges is None else self.bins.edges

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for quantile bins without documents."""
        bins, filled = self.bins, self.bins_filled
        if bins is None or filled is None or filled >= bins.num_bins:
            return ()
        found = f"{filled} of the {bins.num_bins} quantile bins have documents of the sample"
        return (f"{self.name}: {found}: too many scores are equal",)

    @property
    def num_calibration_documents(self) -> int | None:
        """The sample size of quantile bins; None for other bins, and after calibration."""
        return None if self.bins is None or self.edges is not None else self.bins.sample

    def calibrate(self, sample: Iterable[Floats]) -> dict[str, Any]:
        """`{"edges": [...], "bins_filled": n}`: the inner quantiles of the scores of a sample, and the number of bins
        that some of them are in: fewer than asked if many scores are equal.

        `sample` has probabilities float32 [rows, num_labels].

        Raises:
            AnnotatorError: no quantile bins are to be fitted, or no document of the sample has a score.
        """
        if self.bins is None or self.num_calibration_documents is None:
            raise AnnotatorError(f"{self.where}: no quantile bins to calibrate")
        scores = np.concatenate([np.empty(0, np.float32), *(self.scores(rows) for rows in sample)])
        scores = scores[~np.isnan(scores)]
        try:
            edges = self.bins.quantile_edges(scores)
        except AnnotatorError as error:
            raise AnnotatorError(f"{self.where}.bins: {error}") from None
        return {"edges": list(edges), "bins_filled": len(self.bins.assign(scores, edges).unique())}

    def with_calibration(self, calibration: Mapping[str, Any]) -> ScoreColumns:
        """The same columns with the edges from `calibrate`."""
        edges = tuple(map(float, calibration["edges"]))
        return replace(self, fitted_edges=edges, bins_filled=calibration.get("bins_filled"))

    def scores(self, rows: Floats) -> Floats:
        """float32 [rows] from probabilities float32 [rows, num_labels]; NaN for a row of NaN."""
        scores = self._function.scores(rows)
        return scores if self.clip is None else np.clip(scores, *self.clip).astype(np.float32)

    def columns(self, rows: Floats) -> list[pa.Array]:
        """The columns, in the order of `fields`, from probabilities float32 [rows, num_labels].

        Raises:
            AnnotatorError: quantile bins that are not calibrated.
        """
        self.check_calibrated()
        scores = self.scores(rows)
        columns = [pa.array(scores, mask=np.isnan(scores))]
        if self._function.names is not None:
            columns.insert(0, self._function.labels(rows))
        if self.bins is not None:
            columns.insert(0, self.bins.assign(scores, self.edges or ()))
        return columns

    def check_calibrated(self) -> None:
        """Check that the edges of quantile bins are known.

        Raises:
            AnnotatorError: they are not.
        """
        if self.num_calibration_documents is not None:
            raise AnnotatorError(f"{self.where}.bins: the edges of the quantiles are unknown; calibrate first")
