"""The `embedding` annotator: small classifiers on the vectors of texts, as FineWeb2-HQ and Apertus select with.

The embedder is a static model, or one of a plugin: a subclass of `EmbedderConfig` with one method.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa

from colophon.annotators.base import AnnotatorError
from colophon.annotators.columns import string_column
from colophon.annotators.embedding.embedder import Embedder
from colophon.annotators.embedding.model import EmbeddingModel
from colophon.annotators.embedding.static_model import FILES, StaticModel
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.heads.annotator import HeadsAnnotator, HeadsConfig
from colophon.annotators.heads.head import Floats


class EmbedderConfig(HeadsConfig):
    """The settings of classifiers on the vectors of one embedder. A plugin defines `type_name` and `embedder`."""

    reads = ("text",)

    model: str
    """Local path of the heads, a file that `colophon train-classifier --kind embedding` or `colophon distill` wrote.
    The embedder must be the one that they were trained with."""

    @abstractmethod
    def embedder(self) -> Embedder:
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
    """Scores each text with small classifiers on its vector, from a static model on disk.

    Example:

        [annotators.quality]
        type = "embedding"
        static = "models/potion-base-8M"
        model = "models/quality.safetensors"
        heads = { quality = { score = { probability_of = "high" } } }
    """

    type_name: ClassVar[str] = "embedding"
    path_fields = ("model", "static")

    static: str
    """Local folder of a static model, as model2vec saves it: `model.safetensors`, `tokenizer.json` and `config.json`.
    A model of a different kind is a plugin."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The heads' file, and those of the folder."""
        return (self.model, *(f"{self.static}/{name}" for name in FILES))

    def embedder(self) -> StaticModel:
        """See `EmbedderConfig.embedder`."""
        return StaticModel(self.static)


class EmbeddingAnnotator(HeadsAnnotator[EmbedderConfig, EmbeddingModel]):
    """Scores `text`. All columns are null for a null or empty text, and for one without a vector."""

    columns = ("text",)
    code_version = 1

    def model_settings(self) -> dict[str, Any]:
        """See `HeadsAnnotator.model_settings`."""
        return {**super().model_settings(), "embedder": self._model.embedder}

    @property
    def model_files(self) -> Mapping[str, str]:
        """The paths of the heads and of a static model, each with its sha256."""
        return {path: remembered_sha256(path) for path in self._config.paths}

    def probabilities(self, batch: pa.RecordBatch) -> list[Floats]:
        """See `HeadsAnnotator.probabilities`."""
        return self._model.probabilities(string_column(batch, "text"))
