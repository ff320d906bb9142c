"""The `pooled` annotator: a small classifier over the ids that a pass has anyway, with one or several heads.

Cost: 75 to 110 MB of text a second and core where the ids exist; see `pooled.model`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, model_validator

from colophon.annotators.base import INPUT_IDS, Annotator, AnnotatorConfig, AnnotatorError
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.fasttext.score_columns import ScoreColumns, check_score_settings
from colophon.annotators.fasttext.score_rules import Bins, ScoreRule
from colophon.annotators.pooled.model import PooledModel
from colophon.annotators.pooled.model_file import HeadInfo
from colophon.shards.common.errors import did_you_mean

_CODE_VERSION = 1
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


class PooledConfig(AnnotatorConfig):
    """Scores each text with a `pooled` model, which reads the ids of the recipe's tokenizer.

    Example:

        [annotators.quality]
        type = "pooled"
        model = "models/quality.safetensors"
        heads = { quality = { score = { probability_of = "high" } } }
    """

    type_name: ClassVar[str] = "pooled"
    path_fields = ("model",)
    reads = (INPUT_IDS,)
    writes = ("NAME_score", "NAME (a label or a bin)")

    model: str
    """Local path of a model that `colophon train-classifier --kind pooled` or `colophon distill` wrote. The recipe's
    `[tokenizer]` must be the one that it was trained with."""
    heads: dict[str, HeadConfig] | None = None
    """The heads of the model to write, by name, each with its score. Default: all, each with its most probable label.
    The columns of a model with one head are under the annotator's name; those of several are under NAME_HEAD."""

    def build(self, name: str) -> PooledAnnotator:
        """The annotator under `name`; reads the model's description.

        Raises:
            AnnotatorError: the model is missing or not usable, or lacks a head or a label that is named.
        """
        try:
            model = PooledModel(self.model)
        except AnnotatorError as error:
            raise AnnotatorError(f"annotators.{name}.model: {error}") from None
        return PooledAnnotator(name, config=self, model=model)


class PooledAnnotator(Annotator):
    """Scores `input_ids` with the heads of one model. Output columns: see `ScoreColumns`, for each head.

    All are null for a null text, and for one without a token that training has seen.
    """

    columns = (INPUT_IDS,)

    def __init__(
        self, name: str, *, config: PooledConfig, model: PooledModel, columns: Mapping[str, ScoreColumns] | None = None
    ) -> None:
        """`columns` are those of each head with the calibrated edges of quantile bins."""
        self.name = name
        self._config = config
        self._model = model
        self._columns = _score_columns(name, config, model.info.heads) if columns is None else dict(columns)
        self.schema = pa.schema([field for each in self._columns.values() for field in each.fields])
        self.tokenizer_sha256 = model.info.tokenizer.sha256

    @cached_property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """See `Annotator.settings`. The first use reads the whole model file for its sha256, 0.5 to 2 s a GB."""
        return {
            "type": PooledConfig.type_name,
            "code_version": _CODE_VERSION,
            "name": self.name,
            "config": self._config.model_dump(mode="json", exclude={"model"}),
            "edges": {head: list(each.edges) for head, each in self._columns.items() if each.edges is not None},
            "model_sha256": remembered_sha256(self._config.model),
        }

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
        rows = [self._probabilities(batch) for batch in sample]
        return {head: each.calibrate(found[head] for found in rows) for head, each in waiting.items()}

    def with_calibration(self, calibration: Mapping[str, Any]) -> PooledAnnotator:
        """This annotator with the edges from `calibrate`, which are part of its settings."""
        columns = {
            head: each if each.num_calibration_documents is None else each.with_calibration(calibration[head])
            for head, each in self._columns.items()
        }
        return PooledAnnotator(self.name, config=self._config, model=self._model, columns=columns)

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class.

        Raises:
            AnnotatorError: quantile bins that are not calibrated, or a model that cannot be loaded.
        """
        for each in self._columns.values():
            each.check_calibrated()
        rows = self._probabilities(batch)
        columns = [column for head, each in self._columns.items() for column in each.columns(rows[head])]
        return pa.record_batch(columns, schema=self.schema)

    def _probabilities(self, batch: pa.RecordBatch) -> dict[str, Any]:
        """float32 [rows, num_labels] of each head."""
        found = self._model.probabilities(batch.column(INPUT_IDS))
        return {head.name: rows for head, rows in zip(self._model.info.heads, found, strict=True)}


def _score_columns(name: str, config: PooledConfig, heads: tuple[HeadInfo, ...]) -> dict[str, ScoreColumns]:
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
