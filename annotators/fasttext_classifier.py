"""The `fasttext` annotator: any fastText classifier, its text preparation, a score from its labels, and bins.

docs/annotators.md has the settings of public models. Cost: 50 to 250 MB of text a second; see `fasttext.kernel`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from colophon.annotators.base import Annotator, AnnotatorConfig, AnnotatorError
from colophon.annotators.columns import string_column
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.fasttext.model_card import preparation_of
from colophon.annotators.fasttext.score_rules import Bins, Floats, ScoreRule, ascending
from colophon.annotators.fasttext.text_preparation import TextPreparation

_CODE_VERSION = 3


class FastTextConfig(AnnotatorConfig):
    """Scores each text with a supervised fastText model.

    Example:

        [annotators.quality]
        type = "fasttext"
        model = "models/quality.bin"
        score = { probability_of = "high" }
        bins = { quantiles = 5 }
    """

    type_name: ClassVar[str] = "fasttext"
    path_fields = ("model",)
    reads = ("text",)
    writes = ("NAME_score", "NAME (a label or a bin)")

    model: str
    """Local path of a supervised fastText model, `.bin` or `.ftz`."""
    normalize: TextPreparation | None = None
    """The preparation of each text, which must equal that of the model's training data. Default: the preparation in the
    card beside the model (`<model>.json`, written by training); without a card each newline becomes a space."""
    score: ScoreRule
    """The rule that turns the probabilities of the labels into a score."""
    clip: tuple[float, float] | None = None
    """Lowest and highest score; scores outside are set to the nearer one, before bins."""
    bins: Bins | None = None
    """Numbered or named classes of the score, instead of a label."""

    @model_validator(mode="after")
    def _clip_and_bins(self) -> FastTextConfig:
        if self.clip is not None and not ascending(self.clip):
            raise ValueError(f"clip must be [lowest, highest], got {list(self.clip)}")
        if self.bins is not None and self.score.argmax:
            raise ValueError("bins need a score; argmax already gives a label")
        return self

    def build(self, name: str) -> FastTextAnnotator:
        """The annotator under `name`; reads the model's labels (a second for millions of words), not its matrices.

        Raises:
            AnnotatorError: the model is missing or not usable, or it lacks a label of `score`.
        """
        try:
            model = FastTextModel(self.model)
            normalize = self.normalize or preparation_of(self.model) or TextPreparation()
        except AnnotatorError as error:
            raise AnnotatorError(f"annotators.{name}.model: {error}") from None
        return FastTextAnnotator(name, config=self.model_copy(update={"normalize": normalize}), model=model)


class FastTextAnnotator(Annotator):
    """Scores `text` with one classifier.

    Output columns under the name NAME:
      - with `argmax`: `NAME` (string, the renamed label) and `NAME_score` (float32, its probability);
      - otherwise `NAME_score` (float32) and, with bins, `NAME` (string if the bins have labels, otherwise int16).
    All are null for a null text and for a text without a word.

    Pickling computes the model's sha256 first and excludes its matrices, so that workers need not hash the model.
    """

    columns = ("text",)

    def __init__(
        self, name: str, *, config: FastTextConfig, model: FastTextModel, edges: tuple[float, ...] | None = None
    ) -> None:
        """`config` has its text preparation filled in; `edges` are the calibrated edges of quantile bins."""
        self.name = name
        self._config = config
        self._normalize = config.normalize or TextPreparation()
        self._model = model
        self._score_function = config.score.for_labels(
            model.header.labels, where=f"annotators.{name}.score", loss=model.header.loss
        )
        self._bins_filled: int | None = None
        self._edges = edges if config.bins is None or config.bins.edges is None else config.bins.edges
        fields = [(f"{name}_score", pa.float32())]
        if self._score_function.names is not None:
            fields.insert(0, (name, pa.string()))
        if config.bins is not None:
            fields.insert(0, (name, config.bins.type))
        self.schema = pa.schema(fields)

    @cached_property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """See `Annotator.settings`. The first use reads the whole model file for its sha256, 0.5 to 2 s a GB."""
        return {
            "type": FastTextConfig.type_name,
            "code_version": _CODE_VERSION,
            "name": self.name,
            "config": self._config.model_dump(mode="json", exclude={"model"}),
            "edges": None if self._edges is None else list(self._edges),
            "model_sha256": remembered_sha256(self._config.model),
        }

    def __getstate__(self) -> dict[str, Any]:
        _ = self.settings
        return self.__dict__

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for quantile bins without documents."""
        bins, filled = self._config.bins, self._bins_filled
        if bins is None or filled is None or filled >= bins.num_bins:
            return ()
        found = f"{filled} of the {bins.num_bins} quantile bins have documents of the sample"
        return (f"{self.name}: {found}: too many scores are equal",)

    @property
    def model_files(self) -> Mapping[str, str]:
        """The model's path and sha256."""
        return {self._config.model: self.settings["model_sha256"]}

    def load(self) -> None:
        """Map the model's tables, after building them if this machine does not have them: 1 to 8 s a GB.

        Raises:
            AnnotatorError: the file has changed since its sha256 was computed, or holds NaN.
        """
        self._model.load()
        if remembered_sha256(self._config.model) != self.settings["model_sha256"]:
            raise AnnotatorError(f"annotators.{self.name}.model: {self._config.model} has changed since the run began")

    @property
    def num_calibration_documents(self) -> int | None:
        """The sample size of quantile bins; None for other bins, and after calibration."""
        bins = self._config.bins
        return None if bins is None or self._edges is not None else bins.sample

    def calibrate(self, sample: Iterable[pa.RecordBatch]) -> dict[str, Any]:
        """`{"edges": [...], "bins_filled": n}`: the inner quantiles of the scores of the documents in `sample`, and the
        number of bins that some of them are in: fewer than asked if many scores are equal.

        Raises:
            AnnotatorError: this annotator needs no calibration, or no document of the sample has a score.
        """
        if self._config.bins is None or self.num_calibration_documents is None:
            raise AnnotatorError(f"annotators.{self.name}: no quantile bins to calibrate")
        parts = [self._scores(rows) for batch in sample for rows in self._probabilities(batch)]
        scores = np.concatenate([np.empty(0, np.float32), *parts])
        bins, scores = self._config.bins, scores[~np.isnan(scores)]
        try:
            edges = bins.quantile_edges(scores)
        except AnnotatorError as error:
            raise AnnotatorError(f"annotators.{self.name}.bins: {error}") from None
        return {"edges": list(edges), "bins_filled": len(bins.assign(scores, edges).unique())}

    def with_calibration(self, calibration: Mapping[str, Any]) -> FastTextAnnotator:
        """This annotator with the edges from `calibrate`, which are part of its settings."""
        edges = tuple(map(float, calibration["edges"]))
        known = FastTextAnnotator(self.name, config=self._config, model=self._model, edges=edges)
        known._bins_filled = calibration.get("bins_filled")
        return known

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class.

        Raises:
            AnnotatorError: quantile bins that are not calibrated, or a model that cannot be loaded.
        """
        if self.num_calibration_documents is not None:
            raise AnnotatorError(
                f"annotators.{self.name}.bins: the edges of the quantiles are unknown; calibrate first"
            )
        parts = [self._columns(rows) for rows in self._probabilities(batch)]
        empty = pa.record_batch([pa.array([], field.type) for field in self.schema], schema=self.schema)
        return pa.concat_batches([empty, *parts])

    def _probabilities(self, batch: pa.RecordBatch) -> Iterator[Floats]:
        """float32 [rows, num_labels] for one slice of `batch` after the other, so that memory does not grow with it."""
        return self._model.slices(string_column(batch, "text"), preparation=self._normalize)

    def _scores(self, rows: Floats) -> Floats:
        scores = self._score_function.scores(rows)
        return scores if self._config.clip is None else np.clip(scores, *self._config.clip).astype(np.float32)

    def _columns(self, rows: Floats) -> pa.RecordBatch:
        scores = self._scores(rows)
        columns = [pa.array(scores, mask=np.isnan(scores))]
        if self._score_function.names is not None:
            columns.insert(0, self._score_function.labels(rows))
        if self._config.bins is not None:
            columns.insert(0, self._config.bins.assign(scores, self._edges or ()))
        return pa.record_batch(columns, schema=self.schema)
