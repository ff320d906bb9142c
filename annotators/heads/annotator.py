"""The columns of a model with one or several heads, and the annotator that writes them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, model_validator

from colophon.annotators.base import Annotator, AnnotatorConfig, AnnotatorError
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.fasttext.score_columns import ScoreColumns, check_score_settings
from colophon.annotators.fasttext.score_rules import Bins, ScoreRule
from colophon.annotators.heads.head import Floats, HeadInfo
from colophon.shards.common.errors import did_you_mean

_ARGMAX = ScoreRule(argmax=True)


class HeadConfig(BaseModel):
    """The score of one head of the model.

    Example:

        [annotators.known]
        type = "pooled"
        model = "models/known.safetensors"

        [annotators.known.heads.quality]
        score = { probability_of = "high" }
        bins = { edges = [0.2, 0.8], labels = ["low", "middle", "high"] }
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: ScoreRule | None = None
    """The rule that turns the probabilities of the labels into a score. Default: `argmax`, the most probable label and
    its probability."""
    clip: tuple[float, float] | None = None
    """Lowest and highest score; scores outside are set to the nearer one, before bins."""
    bins: Bins | None = None
    """Numbered or named classes of the score, instead of a label."""

    @model_validator(mode="after")
    def _clip_and_bins(self) -> HeadConfig:
        check_score_settings(self.score, self.clip, self.bins)
        return self


class HeadsConfig(AnnotatorConfig):
    """The settings that all classifiers with heads have."""

    path_fields: ClassVar[tuple[str, ...]] = ("model",)
    writes: ClassVar[tuple[str, ...]] = ("NAME_score", "NAME (a label or a bin)")

    model: str
    """Local path of the model's file."""
    heads: dict[str, HeadConfig] | None = None
    """The heads of the model to write, by name, each with its score. Default: all, each with its most probable label.
    The columns of a model with one head are under the annotator's name; those of several are under NAME_HEAD."""


class HeadsModel(Protocol):
    """A model with heads."""

    @property
    def heads(self) -> Sequence[HeadInfo]:
        """Its heads, in the order of their probabilities."""

    def load(self) -> None:
        """Map the file.

        Raises:
            AnnotatorError: it is damaged.
        """


Config = TypeVar("Config", bound=HeadsConfig)
Model = TypeVar("Model", bound=HeadsModel)


class HeadsAnnotator(Annotator, Generic[Config, Model]):
    """Scores documents with the heads of one model. Output columns: see `ScoreColumns`, for each head.

    All are null for a document without probabilities.
    """

    code_version: ClassVar[int]
    """Raised with each change of the output."""

    def __init__(
        self, name: str, *, config: Config, model: Model, columns: Mapping[str, ScoreColumns] | None = None
    ) -> None:
        """`columns` are those of each head with the calibrated edges of quantile bins."""
        self.name = name
        self._config = config
        self._model = model
        self._columns = _score_columns(name, config, model.heads) if columns is None else dict(columns)
        self.schema = pa.schema([field for each in self._columns.values() for field in each.fields])

    @abstractmethod
    def probabilities(self, batch: pa.RecordBatch) -> list[Floats]:
        """For each head of the model float32 [rows, num_labels]; NaN for a document without a score."""

    @cached_property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """See `Annotator.settings`. The first use reads the whole model file for its sha256, 0.5 to 2 s a GB."""
        return {
            "type": self._config.type_name,
            "code_version": self.code_version,
            "name": self.name,
            "config": self._config.model_dump(mode="json", exclude=set(self._config.path_fields)),
            "edges": {head: list(each.edges) for head, each in self._columns.items() if each.edges is not None},
            **self.model_settings(),
        }

    def model_settings(self) -> dict[str, Any]:
        """The part of `settings` that identifies the model."""
        return {"model_sha256": remembered_sha256(self._config.model)}

    def __getstate__(self) -> dict[str, Any]:
        _ = self.settings
        return self.__dict__

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each head that has quantile bins without documents."""
        return tuple(note for each in self._columns.values() for note in each.notes)

    @property
    def model_files(self) -> Mapping[str, str]:
        """The model's path and sha256."""
        return {self._config.model: self.settings["model_sha256"]}

    def load(self) -> None:
        """Map the model.

        Raises:
            AnnotatorError: the file has changed since its sha256 was computed, or is damaged.
        """
        self._model.load()
        if remembered_sha256(self._config.model) != self.settings["model_sha256"]:
            raise AnnotatorError(f"annotators.{self.name}.model: {self._config.model} has changed since the run began")

    @property
    def num_calibration_documents(self) -> int | None:
        """The largest sample size of the heads' quantile bins; None without such bins, and after calibration."""
        return max((n for c in self._columns.values() if (n := c.num_calibration_documents) is not None), default=None)

    def calibrate(self, sample: Iterable[pa.RecordBatch]) -> dict[str, Any]:
        """The edges of quantile bins by head, see `ScoreColumns.calibrate`.

        Raises:
            AnnotatorError: this annotator needs no calibration, or no document of the sample has a score.
        """
        waiting = {head: each for head, each in self._columns.items() if each.num_calibration_documents is not None}
        if not waiting:
            raise AnnotatorError(f"annotators.{self.name}: no quantile bins to calibrate")
        rows = [self._by_head(batch) for batch in sample]
        return {head: each.calibrate(found[head] for found in rows) for head, each in waiting.items()}

    def with_calibration(self, calibration: Mapping[str, Any]) -> Annotator:
        """This annotator with the edges from `calibrate`, which are part of its settings."""
        columns = {
            head: each if each.num_calibration_documents is None else each.with_calibration(calibration[head])
            for head, each in self._columns.items()
        }
        return type(self)(self.name, config=self._config, model=self._model, columns=columns)

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class.

        Raises:
            AnnotatorError: quantile bins that are not calibrated, or a model that cannot be loaded.
        """
        for each in self._columns.values():
            each.check_calibrated()
        rows = self._by_head(batch)
        columns = [column for head, each in self._columns.items() for column in each.columns(rows[head])]
        return pa.record_batch(columns, schema=self.schema)

    def _by_head(self, batch: pa.RecordBatch) -> dict[str, Floats]:
        return {head.name: rows for head, rows in zip(self._model.heads, self.probabilities(batch), strict=True)}


def _score_columns(name: str, config: HeadsConfig, heads: Sequence[HeadInfo]) -> dict[str, ScoreColumns]:
    known = {head.name: head for head in heads}
    wanted = dict.fromkeys(known, HeadConfig()) if config.heads is None else config.heads
    for head in wanted:
        if head not in known:
            guess = did_you_mean(head, known)
            raise AnnotatorError(
                f"annotators.{name}.heads: the model has no head '{head}'; heads: {', '.join(known)}{guess}"
            )
    return {
        head: ScoreColumns(
            name=name if len(known) == 1 else f"{name}_{head}",
            rule=settings.score or _ARGMAX,
            labels=known[head].labels,
            loss=known[head].loss,
            where=f"annotators.{name}" if len(known) == 1 else f"annotators.{name}.heads.{head}",
            clip=settings.clip,
            bins=settings.bins,
        )
        for head, settings in wanted.items()
    }
