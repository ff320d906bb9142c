"""The kinds of classifiers that can be taught, with one interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.annotators.fasttext.training.classifier import DEFAULT_PREPARATION, train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from colophon.annotators.pooled.model import PooledModel
from colophon.pipeline.classifiers.pooled_training import train_pooled
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from colophon.trainer.classifiers.settings import PooledSettings

_BATCH_ROWS = 1024


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
    head: str
    name = "pooled"
    suffix = ".safetensors"

    def teach(self, texts: pa.Array, labels: pa.Array, *, output: Path, report: Callable[[str], None]) -> Student:
        """Train on texts with labels, string or list<string> [n], and write the model to `output`."""
        trained = train_pooled(
            texts, {self.head: labels}, tokenizer=self.tokenizer, output=output, settings=self.settings, report=report
        )
        model = PooledModel(trained.path)

        def predict(texts: pa.Array) -> NumPyArray:
            return _in_batches(texts, lambda part: model.probabilities(self.tokenizer.encode_batch(part))[0])

        return Student(path=trained.path, labels=model.info.heads[0].labels, card=trained.card, predict=predict)


@dataclass(frozen=True, kw_only=True)
class FastTextKind:
    """How a fastText classifier is trained: tags are labels, each against all others."""

    settings: TrainingSettings
    normalize: TextPreparation = DEFAULT_PREPARATION
    name = "fasttext"
    suffix = ".bin"

    def teach(self, texts: pa.Array, labels: pa.Array, *, output: Path, report: Callable[[str], None]) -> Student:
        """Train on texts with labels, string or list<string> [n], and write the model to `output`."""
        trained = train_classifier(
            texts, labels, output=output, normalize=self.normalize, settings=self.settings, report=report
        )
        model = FastTextModel(trained.path, cached=False)

        def predict(texts: pa.Array) -> NumPyArray:
            return _in_batches(texts, lambda part: model.probabilities(part, preparation=self.normalize))

        return Student(path=trained.path, labels=model.label_names, card=trained.card, predict=predict)


StudentKind = PooledKind | FastTextKind


def _in_batches(texts: pa.Array, predict: Callable[[pa.Array], NumPyArray]) -> NumPyArray:
    parts = [predict(texts.slice(start, _BATCH_ROWS)) for start in range(0, len(texts), _BATCH_ROWS)]
    return np.concatenate(parts)
