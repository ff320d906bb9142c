"""The `language` annotator: any fastText language model, with probabilities and thresholds by language.

Published models name languages differently: `en` in lid.176, `eng_Latn` in GlotLID. Settings use the model's own names;
docs/annotators.md has a table of both. Cost: as of `fasttext`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from colophon.annotators.base import Annotator, AnnotatorConfig, AnnotatorError
from colophon.annotators.columns import string_column
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.fasttext.model_card import preparation_of
from colophon.annotators.fasttext.score_rules import Floats
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.shards.common.errors import did_you_mean, listed

_CODE_VERSION = 1
_MOST_LISTED = 12
OTHERS = "default"
"""The key of the threshold for all languages without one of their own."""

Threshold = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class LanguageConfig(AnnotatorConfig):
    """Names the language of each text by a fastText model.

    Example:

        [annotators.language]
        model = "models/glotlid.bin"
        scores = ["eng_Latn", "deu_Latn"]
        rename = { eng_Latn = "en", deu_Latn = "de" }
        thresholds = { default = 0.5, deu_Latn = 0.8 }
    """

    type_name: ClassVar[str] = "language"
    path_fields = ("model",)
    reads = ("text",)
    writes = ("NAME", "NAME_score", "NAME_LABEL (for each of `scores`)", "NAME_ok (with `thresholds`)")

    model: str
    """Local path of a fastText language model, `.bin` or `.ftz`, such as lid.176, GlotLID, or one of your own."""
    normalize: TextPreparation | None = None
    """The preparation of each text. Default: that of the card beside the model; without a card each newline becomes a
    space."""
    scores: tuple[str, ...] = Field(default=(), max_length=1000)
    """Languages whose probabilities are written too, each to a column of its own, by the model's names."""
    rename: dict[str, str] = Field(default={})
    """Names of languages, by the model's names; others keep theirs."""
    thresholds: dict[str, Threshold] = Field(default={})
    """The probability from which on a document counts as the language that it is most like, by the model's names of
    languages, and `default` for all others. Without a default, other languages do not count."""

    @model_validator(mode="after")
    def _columns_differ(self) -> LanguageConfig:
        columns = [self.rename.get(label, label) for label in self.scores]
        taken = {"score", "ok"}
        for column in columns:
            if column in taken:
                raise ValueError(f"scores: two columns would end with {column!r}; rename one of the languages")
            taken.add(column)
        return self

    def build(self, name: str) -> LanguageAnnotator:
        """The annotator under `name`; reads the model's labels.

        Raises:
            AnnotatorError: the model is missing or not usable, or has no such language.
        """
        try:
            model = FastTextModel(self.model)
            normalize = self.normalize or preparation_of(self.model) or TextPreparation()
        except AnnotatorError as error:
            raise AnnotatorError(f"annotators.{name}.model: {error}") from None
        named: dict[str, Iterable[str]] = {
            "scores": self.scores,
            "rename": self.rename,
            "thresholds": [label for label in self.thresholds if label != OTHERS],
        }
        for key, labels in named.items():
            _check_labels(labels, model.label_names, where=f"annotators.{name}.{key}")
        return LanguageAnnotator(name, config=self.model_copy(update={"normalize": normalize}), model=model)


def _check_labels(labels: Iterable[str], known: tuple[str, ...], *, where: str) -> None:
    for label in labels:
        if label not in known:
            shown = listed(sorted(known), most=_MOST_LISTED)
            raise AnnotatorError(
                f"{where}: the model has no language {label!r}; languages: {shown}{did_you_mean(label, known)}"
            )


class LanguageAnnotator(Annotator):
    """Scores `text` with a language model.

    Output columns under the name NAME:
      - `NAME` (string): the most probable language, renamed; `NAME_score` (float32): its probability, at most 1;
      - `NAME_L` (float32) for each L of `scores`: the probability of that language, L as it is renamed;
      - with thresholds `NAME_ok` (bool): whether the score is at least the threshold of the language.
    All are null for a null text and for a text without a word.
    """

    columns = ("text",)

    def __init__(self, name: str, *, config: LanguageConfig, model: FastTextModel) -> None:
        """`config` has its text preparation filled in."""
        self.name = name
        self._config, self._model = config, model
        self._normalize = config.normalize or TextPreparation()
        columns = [(f"{name}_{config.rename.get(label, label)}", pa.float32()) for label in config.scores]
        ok = [(f"{name}_ok", pa.bool_())] if config.thresholds else []
        self.schema = pa.schema([(name, pa.string()), (f"{name}_score", pa.float32()), *columns, *ok])

    @cached_property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """See `Annotator.settings`. The first use reads the whole model file for its sha256, 0.5 to 2 s a GB."""
        return {
            "type": LanguageConfig.type_name,
            "code_version": _CODE_VERSION,
            "name": self.name,
            "config": self._config.model_dump(mode="json", exclude={"model"}),
            "model_sha256": remembered_sha256(self._config.model),
        }

    def __getstate__(self) -> dict[str, Any]:
        _ = self.settings
        return self.__dict__

    @property
    def model_files(self) -> Mapping[str, str]:
        """The model's path and sha256."""
        return {self._config.model: self.settings["model_sha256"]}

    def load(self) -> None:
        """Map the model's tables, see `FastTextModel.load`.

        Raises:
            AnnotatorError: the file has changed since its sha256 was computed, or holds NaN.
        """
        self._model.load()
        if remembered_sha256(self._config.model) != self.settings["model_sha256"]:
            raise AnnotatorError(f"annotators.{self.name}.model: {self._config.model} has changed since the run began")

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class."""
        texts, parts = string_column(batch, "text"), []
        for rows in self._model.slices(texts, preparation=self._normalize):
            parts.append(self._columns(rows))
        empty = pa.record_batch([pa.array([], field.type) for field in self.schema], schema=self.schema)
        return pa.concat_batches([empty, *parts])

    def _columns(self, rows: Floats) -> pa.RecordBatch:
        """The columns of float32 [rows, num_labels] probabilities."""
        unknown = np.isnan(rows).any(axis=1)
        best = np.where(unknown, 0, np.nan_to_num(rows).argmax(axis=1))
        top = np.minimum(rows[np.arange(len(rows)), best], np.float32(1))
        labels = self._model.label_names
        names = pa.array([self._config.rename.get(label, label) for label in labels], pa.string())
        chosen = [np.minimum(rows[:, labels.index(label)], np.float32(1)) for label in self._config.scores]
        columns = [
            names.take(pa.array(best, mask=unknown)),
            *(pa.array(column, mask=unknown) for column in (top, *chosen)),
        ]
        if self._config.thresholds:
            columns.append(pa.array(top >= self._lowest[best], mask=unknown))
        return pa.record_batch(columns, schema=self.schema)

    @cached_property
    def _lowest(self) -> Floats:
        """float32 [num_labels]: the threshold of each language; infinite for one that does not count."""
        thresholds = self._config.thresholds
        others = thresholds.get(OTHERS, math.inf)
        return np.array([thresholds.get(label, others) for label in self._model.label_names], np.float32)
