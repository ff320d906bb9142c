"""The `embedding` annotator: small classifiers on the vectors of texts, as FineWeb2-HQ and Apertus select with.

The embedder is a static model, or one of a plugin: a subclass of `EmbedderConfig` with one method. Ready vectors in a
column of the input need none.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, model_validator

from colophon.annotators.base import AnnotatorError, TypedColumn
from colophon.annotators.columns import string_column, typed_column
from colophon.annotators.embedding.model import EmbeddingModel, VectorSource
from colophon.annotators.embedding.static_model import FILES, StaticModel
from colophon.annotators.embedding.vector_column import VECTOR, VectorColumn
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.fasttext.score_columns import ScoreColumns
from colophon.annotators.heads.annotator import HeadsAnnotator, HeadsConfig
from colophon.annotators.heads.head import Floats


class EmbedderConfig(HeadsConfig):
    """The settings of classifiers on the vectors of one embedder. A plugin defines `type_name` and `embedder`."""

    reads = ("text",)

    model: str
    """Local path of the heads, a file that `colophon train-classifier --kind embedding` or `colophon distill` wrote.
    The embedder must be the one that they were trained with."""

    @abstractmethod
    def embedder(self) -> VectorSource:
        """The embedder; called in every process, before its `load`.

        Raises:
            AnnotatorError: a setting or a file that it cannot use.
        """

    def build(self, name: str) -> EmbeddingAnnotator:
        """The annotator under `name`; reads the description of the heads.

        Raises:
            AnnotatorError: the embedder or the heads are missing or not usable, do not belong together, or lack a head
                or a label that is named.
        """
        try:
            model = EmbeddingModel(self.model, self.embedder)
        except AnnotatorError as error:
            raise AnnotatorError(f"annotators.{name}: {error}") from None
        return EmbeddingAnnotator(name, config=self, model=model)


class EmbeddingConfig(EmbedderConfig):
    """Scores each document with small classifiers on its vector: from a static model on disk, or a column of the input.

    Example:

        [annotators.quality]
        type = "embedding"
        static = "models/potion-base-8M"
        model = "models/quality.safetensors"
        heads = { quality = { score = { probability_of = "high" } } }

        [annotators.edu]
        type = "embedding"
        column = "gte_multilingual_base"
        model = "models/edu.safetensors"
    """

    type_name: ClassVar[str] = "embedding"
    path_fields = ("model", "static")
    reads = ("text, or a column of vectors",)

    static: str | None = None
    """Local folder of a static model, as model2vec saves it: `model.safetensors`, `tokenizer.json` and `config.json`.
    A model of a different kind is a plugin."""
    column: str | None = Field(default=None, min_length=1)
    """Column of the input that has ready vectors: lists of numbers, all of one length, instead of `static`. Its name
    stands for the model that made them: a head that was trained on a column of a different name is refused."""

    @model_validator(mode="after")
    def _one_source(self) -> EmbeddingConfig:
        if (self.static is None) == (self.column is None):
            raise ValueError(
                "set static, a folder of a static model, or column, a column of ready vectors; one of them"
            )
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """The heads' file, and those of the folder."""
        return (self.model, *(() if self.static is None else (f"{self.static}/{name}" for name in FILES)))

    def embedder(self) -> StaticModel | VectorColumn:
        """See `EmbedderConfig.embedder`."""
        return VectorColumn(str(self.column)) if self.static is None else StaticModel(self.static)


class EmbeddingAnnotator(HeadsAnnotator[EmbedderConfig, EmbeddingModel]):
    """Scores `text`, or the vectors of a column. All columns are null for a document without a vector.

    That is one whose text is null, empty or without a known token. In a column of vectors it is null, an empty list, or
    a list with a number that is null, NaN or infinite.
    """

    columns = ("text",)
    code_version = 1

    def __init__(
        self,
        name: str,
        *,
        config: EmbedderConfig,
        model: EmbeddingModel,
        columns: Mapping[str, ScoreColumns] | None = None,
    ) -> None:
        """See `HeadsAnnotator`."""
        super().__init__(name, config=config, model=model, columns=columns)
        if model.column is not None:
            self.columns = (f"{model.column} as vector",)
            self.typed = {self.columns[0]: TypedColumn(model.column, VECTOR, f"annotators.{name}.column")}

    def model_settings(self) -> dict[str, Any]:
        """See `HeadsAnnotator.model_settings`."""
        return {**super().model_settings(), "embedder": self._model.embedder}

    @property
    def model_files(self) -> Mapping[str, str]:
        """The paths of the heads and of a static model, each with its sha256."""
        return {path: remembered_sha256(path) for path in self._config.paths}

    def probabilities(self, batch: pa.RecordBatch) -> list[Floats]:
        """See `HeadsAnnotator.probabilities`.

        Raises:
            AnnotatorError: a vector does not have the length of those that the heads were trained on.
        """
        (name,) = self.columns
        column = typed_column(batch, name, VECTOR) if self.typed else string_column(batch, name)
        return self._model.probabilities(column)
