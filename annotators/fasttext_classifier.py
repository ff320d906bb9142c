"""The `fasttext` annotator: any fastText classifier, its text preparation, a score from its labels, and bins.

docs/annotators.md has the settings of public models. Cost: 50 to 250 MB of text a second; see `fasttext.kernel`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import model_validator

from colophon.annotators.base import Annotator, AnnotatorConfig, AnnotatorError
from colophon.annotators.columns import string_column
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.fasttext.model_card import preparation_of
from colophon.annotators.fasttext.score_columns import ScoreColumns, check_score_settings
from colophon.annotators.fasttext.score_rules import Bins, Floats, ScoreRule
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
        check_score_settings(self.score, self.clip, self.bins)
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

    Output columns: see `ScoreColumns`. All are null for a null text and for a text without a word.

    Pickling computes the model's sha256 first and excludes its matrices, so that workers need not hash the model.
    """

    columns = ("text",)

    def __init__(
        self, name: str, *, config: FastTextConfig, model: FastTextModel, columns: ScoreColumns | None = None
    ) -> None:
        """`config` has its text preparation filled in; `columns` have the calibrated edges of quantile bins."""
        self.name = name
        self._config = config
        self._normalize = config.normalize or TextPreparation()
        self._model = model
        self._columns = columns or ScoreColumns(
            name=name,
            rule=config.score,
            labels=model.header.labels,
            loss=model.header.loss,
            where=f"annotators.{name}",
            clip=config.clip,
            bins=config.bins,
        )
        self.schema = pa.schema(self._columns.fields)

    @cached_property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """See `Annotator.settings`. The first use reads the whole model file for its sha256, 0.5 to 2 s a GB."""
        return {
            "type": FastTextConfig.type_name,
            "code_version": _CODE_VERSION,
            "name": self.name,
            "config": self._config.model_dump(mode="json", exclude={"model"}),
            "edges": None if self._columns.edges is None else list(self._columns.edges),
            "model_sha256": remembered_sha256(self._config.model),
        }

    def __getstate__(self) -> dict[str, Any]:
        _ = self.settings
        return self.__dict__

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for quantile bins without documents."""
        return self._columns.notes

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
        return self._columns.num_calibration_documents

    def calibrate(self, sample: Iterable[pa.RecordBatch]) -> dict[str, Any]:
        """The edges of quantile bins, see `ScoreColumns.calibrate`.

        Raises:
            AnnotatorError: this annotator needs no calibration, or no document of the sample has a score.
        """
        return self._columns.calibrate(rows for batch in sample for rows in self._probabilities(batch))

    def with_calibration(self, calibration: Mapping[str, Any]) -> FastTextAnnotator:
        """This annotator with the edges from `calibrate`, which are part of its settings."""
        columns = self._columns.with_calibration(calibration)
        return FastTextAnnotator(self.name, config=self._config, model=self._model, columns=columns)

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class.

        Raises:
            AnnotatorError: quantile bins that are not calibrated, or a model that cannot be loaded.
        """
        self._columns.check_calibrated()
        parts = [
            pa.record_batch(self._columns.columns(rows), schema=self.schema) for rows in self._probabilities(batch)
        ]
        empty = pa.record_batch([pa.array([], field.type) for field in self.schema], schema=self.schema)
        return pa.concat_batches([empty, *parts])

    def _probabilities(self, batch: pa.RecordBatch) -> Iterator[Floats]:
        """float32 [rows, num_labels] for one slice of `batch` after the other, so that memory does not grow with it."""
        return self._model.slices(string_column(batch, "text"), preparation=self._normalize)
