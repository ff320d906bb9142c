"""The kinds of classifiers that can be taught, with one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from colophon.annotators.embedding.model import EmbeddingModel
from colophon.annotators.embedding.vector_column import VectorColumn
from colophon.annotators.embedding_classifier import EmbedderConfig
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.annotators.fasttext.training.classifier import DEFAULT_PREPARATION, train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from colophon.annotators.heads.annotator import HeadsModel
from colophon.annotators.pooled.model import PooledModel
from colophon.pipeline.classifiers.embedding_training import train_embedding
from colophon.pipeline.classifiers.heads import BATCH_ROWS, Labels, TrainedHeads
from colophon.pipeline.classifiers.pooled_training import train_pooled
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from colophon.trainer.classifiers.settings import EmbeddingSettings, PooledSettings

Test = tuple[pa.Array, Labels]
"""Texts, string [n], and labels by head."""


@dataclass(frozen=True, kw_only=True)
class Student:
    """A trained classifier."""

    path: Path
    labels: tuple[str, ...]
    card: dict[str, Any]
    predict: Callable[[pa.Array], NumPyArray]
    """float32 [texts, labels]: the probability of each label; NaN for a text without a feature."""


@dataclass(frozen=True, kw_only=True)
class PooledKind:
    """How a `pooled` classifier is trained."""

    tokenizer: Tokenizer
    settings: PooledSettings
    name = "pooled"
    column = None
    suffix = ".safetensors"
    annotator: Mapping[str, Any] = field(default_factory=lambda: {"type": "pooled"})

    def train(
        self, texts: pa.Array, labels: Labels, *, output: Path, test: Test | None, report: Callable[[str], None]
    ) -> TrainedHeads:
        """Train a head for each column of labels, see `train_pooled`."""
        return train_pooled(
            texts, labels, tokenizer=self.tokenizer, output=output, settings=self.settings, test=test, report=report
        )

    def teach(
        self, texts: pa.Array, labels: pa.Array, *, head: str, output: Path, report: Callable[[str], None]
    ) -> Student:
        """Train on texts with labels, string or list<string> [n], and write the model to `output`."""
        trained = self.train(texts, {head: labels}, output=output, test=None, report=report)
        model = PooledModel(trained.path)
        return _student(trained, model, lambda part: model.probabilities(self.tokenizer.encode_batch(part)))


@dataclass(frozen=True, kw_only=True)
class EmbeddingKind:
    """How an `embedding` classifier is trained."""

    config: EmbedderConfig
    """The annotator that will use the model; its `model` and `heads` do not count."""
    settings: EmbeddingSettings
    name = "embedding"
    suffix = ".safetensors"

    @property
    def column(self) -> str | None:
        """See `StudentKind`."""
        source = self.config.embedder()
        return source.column if isinstance(source, VectorColumn) else None

    @property
    def annotator(self) -> Mapping[str, Any]:
        """See `StudentKind`."""
        keys = self.config.model_dump(mode="json", exclude={"model", "heads"}, exclude_defaults=True)
        return {"type": self.config.type_name, **keys}

    def train(
        self, texts: pa.Array, labels: Labels, *, output: Path, test: Test | None, report: Callable[[str], None]
    ) -> TrainedHeads:
        """Train a head for each column of labels, see `train_embedding`."""
        return train_embedding(
            texts,
            labels,
            embedder=self.config.embedder,
            output=output,
            settings=self.settings,
            test=test,
            report=report,
        )

    def teach(
        self, texts: pa.Array, labels: pa.Array, *, head: str, output: Path, report: Callable[[str], None]
    ) -> Student:
        """Train on texts with labels, string or list<string> [n], and write the model to `output`."""
        trained = self.train(texts, {head: labels}, output=output, test=None, report=report)
        model = EmbeddingModel(trained.path, self.config.embedder)
        return _student(trained, model, model.probabilities)


@dataclass(frozen=True, kw_only=True)
class FastTextKind:
    """How a fastText classifier is trained: tags are labels, each against all others."""

    settings: TrainingSettings
    normalize: TextPreparation = DEFAULT_PREPARATION
    name = "fasttext"
    column = None
    suffix = ".bin"
    annotator: Mapping[str, Any] = field(default_factory=lambda: {"type": "fasttext"})

    def teach(
        self, texts: pa.Array, labels: pa.Array, *, head: str, output: Path, report: Callable[[str], None]
    ) -> Student:
        """Train on texts with labels, string or list<string> [n], and write the model to `output`."""
        trained = train_classifier(
            texts, labels, output=output, normalize=self.normalize, settings=self.settings, report=report
        )
        model = FastTextModel(trained.path, cached=False)

        def predict(texts: pa.Array) -> NumPyArray:
            return _in_batches(texts, lambda part: model.probabilities(part, preparation=self.normalize))

        return Student(path=trained.path, labels=model.label_names, card=trained.card, predict=predict)


HeadsKind = PooledKind | EmbeddingKind
"""A kind of classifier with heads."""
StudentKind = HeadsKind | FastTextKind
"""A kind of classifier; `annotator` has the keys of the annotator that uses the model, but for model and score.

`column` is the input's column of vectors that it reads in place of texts, wherever a method takes `texts`, or None."""


def _student(
    trained: TrainedHeads, model: HeadsModel, probabilities: Callable[[pa.Array], Sequence[NumPyArray]]
) -> Student:
    """The first head of a model as a student."""
    return Student(
        path=trained.path,
        labels=model.heads[0].labels,
        card=trained.card,
        predict=lambda texts: _in_batches(texts, lambda part: probabilities(part)[0]),
    )


def _in_batches(texts: pa.Array, predict: Callable[[pa.Array], NumPyArray]) -> NumPyArray:
    parts = [predict(texts.slice(start, BATCH_ROWS)) for start in range(0, len(texts), BATCH_ROWS)]
    return np.concatenate(parts)
