"""The `pooled` annotator: a small classifier over the ids that a pass has anyway, with one or several heads.

Cost: 75 to 110 MB of text a second and core where the ids exist; see `pooled.model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pyarrow as pa

from colophon.annotators.base import INPUT_IDS, AnnotatorError
from colophon.annotators.fasttext.score_columns import ScoreColumns
from colophon.annotators.heads.annotator import HeadsAnnotator, HeadsConfig
from colophon.annotators.heads.head import Floats
from colophon.annotators.pooled.model import PooledModel


class PooledConfig(HeadsConfig):
    """Scores each text with a `pooled` model, which reads the ids of the recipe's tokenizer.

    Example:

        [annotators.quality]
        type = "pooled"
        model = "models/quality.safetensors"
        heads = { quality = { score = { probability_of = "high" } } }
    """

    type_name: ClassVar[str] = "pooled"
    reads = (INPUT_IDS,)

    model: str
    """Local path of a model that `colophon train-classifier --kind pooled` or `colophon distill` wrote. The recipe's
    `[tokenizer]` must be the one that it was trained with."""

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


class PooledAnnotator(HeadsAnnotator[PooledConfig, PooledModel]):
    """Scores `input_ids`. All columns are null for a null text, and for one without a token that training has seen."""

    columns = (INPUT_IDS,)
    code_version = 1

    def __init__(
        self, name: str, *, config: PooledConfig, model: PooledModel, columns: Mapping[str, ScoreColumns] | None = None
    ) -> None:
        super().__init__(name, config=config, model=model, columns=columns)
        self.tokenizer_sha256 = model.info.tokenizer.sha256

    def probabilities(self, batch: pa.RecordBatch) -> list[Floats]:
        """See `HeadsAnnotator.probabilities`."""
        return self._model.probabilities(batch.column(INPUT_IDS))
