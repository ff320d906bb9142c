"""Score rules: from the probabilities of all labels to one score or one label, and from a score to a bin."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model import LABEL_PREFIX, decode_label
from colophon.annotators.weborganizer import format_name, topic_name
from colophon.shards.common.errors import listed

Floats = npt.NDArray[np.float32]

_SUM_TO_ONE = ("softmax", "hs")
_MAX_LABELS_LISTED = 12
_PRESETS: dict[str, Callable[[str], str | None]] = {
    "weborganizer_topics": topic_name,
    "weborganizer_formats": format_name,
}


class ScoreRule(BaseModel):
    """The rule that turns the probabilities of all labels into a score: one of `probability_of`, `expected`, `argmax`.

    Labels are written with or without `__label__`.

    Example:

        [annotators.topic]
        type = "fasttext"
        model = "models/topic.bin"
        score = { argmax = true, rename = "weborganizer_topics" }
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability_of: str | None = None
    """The score is the probability of this label."""
    expected: dict[str, float] | None = None
    """The score is the sum over labels of probability times this number. Every label of the model needs a number.
    Probabilities of a one-versus-all model, which do not sum to 1, are divided by their sum first."""
    argmax: Literal[True] | None = None
    """The most probable label (of equals, the first in the model); the score is its probability."""
    rename: dict[str, str] | Literal["weborganizer_topics", "weborganizer_formats"] | None = None
    """With `argmax`: label to name. Labels that are not in a table keep their own name, without `__label__`."""

    @model_validator(mode="after")
    def _one_rule(self) -> ScoreRule:
        rules = [rule for rule in ("probability_of", "expected", "argmax") if getattr(self, rule) is not None]
        if len(rules) != 1:
            given = " and ".join(rules) or "none"
            raise ValueError(f"give exactly one of probability_of, expected, argmax; given: {given}")
        if self.rename is not None and self.argmax is None:
            raise ValueError("rename needs argmax")
        if self.expected is not None and not all(map(math.isfinite, self.expected.values())):
            raise ValueError("the numbers of expected must be finite")
        return self

    def for_labels(self, labels: Sequence[str], *, where: str, loss: str) -> ScoreFunction:
        """The score function of a model with these `labels` and this `loss` (as in `FastTextHeader`).

        `where` (`annotators.quality.score`) begins the error messages.

        Raises:
            AnnotatorError: a label of the rule is not among them, or one of them has no number or preset name.
        """
        position = _positions(labels)
        if self.argmax:
            return ScoreFunction(names=self._names(labels, position, where=where))
        rule = "expected" if self.expected is not None else "probability_of"
        numbers = {str(self.probability_of): 1.0} if self.expected is None else self.expected
        _check_labels(numbers, labels, position, where=f"{where}.{rule}")
        weights = np.zeros(len(labels))
        for label, number in numbers.items():
            weights[position[label]] = number
        numbered = {position[label] for label in numbers}
        missing = [i for i in range(len(labels)) if i not in numbered]
        if self.expected is not None and missing:
            raise AnnotatorError(f"{where}.expected: no number for {_name_list([labels[i] for i in missing])}")
        return ScoreFunction(weights=weights, normalized=self.expected is not None and loss not in _SUM_TO_ONE)

    def _names(self, labels: Sequence[str], position: dict[str, int], *, where: str) -> tuple[str, ...]:
        names = [decode_label(label) for label in labels]
        if isinstance(self.rename, str):
            found = [_PRESETS[self.rename](name) for name in names]
            unknown = [label for label, name in zip(labels, found, strict=True) if name is None]
            if unknown:
                raise AnnotatorError(f"{where}.rename: {self.rename} has no name for {_name_list(unknown)}")
            return tuple(name for name in found if name is not None)
        _check_labels(self.rename or {}, labels, position, where=f"{where}.rename")
        for label, name in (self.rename or {}).items():
            names[position[label]] = name
        return tuple(names)


@dataclass(frozen=True, kw_only=True)
class ScoreFunction:
    """A score rule for the labels of one model. Exactly one of `weights` and `names` is not None."""

    weights: npt.NDArray[np.float64] | None = None
    """float64 [num_labels]: the score is the weighted sum of probabilities."""
    names: tuple[str, ...] | None = None
    """The labels as the annotation writes them: the score is the largest probability."""
    normalized: bool = False
    """Divide the probabilities of a row by their sum first; a row of zeros then has no score."""

    def scores(self, probabilities: Floats) -> Floats:
        """Scores float32 [rows] from probabilities float32 [rows, num_labels]; a row of NaN gives NaN."""
        if self.weights is None:
            return np.asarray(probabilities.max(axis=1))
        # Summed in float64 and row by row: the same row gives the same bits in every batch. A BLAS product does not.
        rows = probabilities.astype(np.float64)
        scores = (rows * self.weights).sum(axis=1)
        if self.normalized:
            total = rows.sum(axis=1)
            scores = np.divide(scores, total, out=np.full(len(rows), np.nan), where=total > 0)
        return np.asarray(scores, np.float32)

    def labels(self, probabilities: Floats) -> pa.Array:
        """The name of the most probable label of each row, null for a row of NaN."""
        unknown = np.isnan(probabilities).any(axis=1)
        return self._names.take(pa.array(probabilities.argmax(axis=1), mask=unknown))

    @cached_property
    def _names(self) -> pa.Array:
        return pa.array(self.names, pa.string())


class Bins(BaseModel):
    """Numbered classes of a score: the bin of a score is the number of edges that are not above it.

    Edges 0.2 and 0.8 put 0.1 into bin 0, 0.2 and 0.5 into bin 1, and 0.9 into bin 2. Edges and scores are compared as
    float32, so that a score that prints as an edge is in the bin that begins there.

    Example:

        [annotators.lengths]
        type = "columns"

        [annotators.lengths.columns.length]
        column = "token_count"
        bins = { edges = [200, 2000], labels = ["short", "medium", "long"] }
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    edges: tuple[float, ...] | None = Field(default=None, min_length=1, max_length=10_000)
    """Ascending; n edges give n + 1 bins."""
    quantiles: int | None = Field(default=None, ge=2, le=1000)
    """This many bins of equal counts, with edges found on a sample of the documents before the run."""
    sample: int = Field(default=10_000, ge=1)
    """With `quantiles`: documents in the sample."""
    labels: tuple[str, ...] | None = None
    """Names of the bins, lowest first; without them a bin is its number, from 0."""

    @model_validator(mode="after")
    def _edges_and_labels(self) -> Bins:
        if (self.edges is None) == (self.quantiles is None):
            raise ValueError("give exactly one of edges, quantiles")
        if self.edges is not None and not ascending(self.edges):
            raise ValueError(f"edges must be finite and ascending, got {list(self.edges)}")
        if self.labels is not None and len(self.labels) != self.num_bins:
            raise ValueError(f"{self.num_bins} bins need as many labels, got {len(self.labels)}")
        return self

    @property
    def num_bins(self) -> int:
        """The number of edges plus one, or the number of quantiles."""
        return self.quantiles if self.quantiles is not None else len(self.edges or ()) + 1

    @property
    def type(self) -> pa.DataType:
        """The type of the annotation column: string with labels, int16 without."""
        return pa.int16() if self.labels is None else pa.string()

    def quantile_edges(self, scores: Floats) -> tuple[float, ...]:
        """The inner quantiles of `scores`, interpolated linearly; equal ones leave the bins between them empty.

        Raises:
            AnnotatorError: no score is given.
        """
        if not len(scores):
            raise AnnotatorError("no document of the sample has a score")
        inner = np.arange(1, self.num_bins) / self.num_bins
        return tuple(np.quantile(scores, inner).astype(np.float32).tolist())

    def assign(self, scores: Floats, edges: Sequence[float]) -> pa.Array:
        """The bins of `scores` between `edges`, null for NaN."""
        numbers = np.searchsorted(np.asarray(edges, np.float32), scores, side="right").astype(np.int16)
        bins = pa.array(numbers, mask=np.isnan(scores))
        return bins if self.labels is None else pa.array(self.labels, pa.string()).take(bins)


def ascending(values: Sequence[float]) -> bool:
    """Whether all values are finite and each is above the one before it."""
    return all(map(math.isfinite, values)) and all(a < b for a, b in pairwise(values))


def _positions(labels: Sequence[str]) -> dict[str, int]:
    """Every spelling of a label (as in the file, without the prefix, decoded) → its place in the model."""
    spellings = (labels, [label.removeprefix(LABEL_PREFIX) for label in labels], [decode_label(x) for x in labels])
    position: dict[str, int] = {}
    for spelling in spellings:
        for place, label in enumerate(spelling):
            position.setdefault(label, place)
    return position | {LABEL_PREFIX + label: place for label, place in position.items()}


def _check_labels(wanted: Iterable[str], labels: Sequence[str], position: dict[str, int], *, where: str) -> None:
    used: dict[int, str] = {}
    for label in wanted:
        if label not in position:
            raise AnnotatorError(f"{where}: the model has no label '{label}'; labels: {_name_list(labels)}")
        other = used.setdefault(position[label], label)
        if other != label:
            raise AnnotatorError(f"{where}: '{other}' and '{label}' are the same label")


def _name_list(labels: Sequence[str]) -> str:
    return listed(sorted(decode_label(label) for label in labels), most=_MAX_LABELS_LISTED)
