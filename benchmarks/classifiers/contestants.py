"""The kinds of classifiers: each is trained on a task, and gives the label of each test text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.classifiers.tasks import Task
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.score_rules import ScoreRule
from colophon.annotators.fasttext.training.classifier import DEFAULT_PREPARATION, train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from colophon.annotators.pooled.model import PooledModel
from colophon.pipeline.classifiers.pooled_training import train_pooled
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from colophon.trainer.classifiers.settings import PooledSettings

_HEAD = "label"
_ARGMAX = ScoreRule(argmax=True)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The predictions of a trained classifier for the test texts."""

    labels: pa.Array
    expected: NumPyArray | None
    """float64 [texts]: the expected value of labels that are numbers, their mean for a text without a feature; None for
    other labels."""
    training_seconds: float
    """CPU time of all threads."""
    model_bytes: int


Contestant = Callable[[Task, int, Path], Answer]
"""Trains on a task with a seed, in a directory."""


def contestants(vocabulary: Path) -> dict[str, Contestant]:
    """The classifiers by name; the settings of fastText are the defaults of `colophon train-classifier`."""
    return {
        "pooled": partial(_pooled, vocabulary=vocabulary),
        "fastText, bigrams": partial(_fasttext, settings=TrainingSettings()),
        "fastText, bigrams, 30 epochs": partial(_fasttext, settings=TrainingSettings(epoch=30)),
    }


@cache
def gpt2(vocabulary: Path) -> Tokenizer:
    """GPT-2's tokenizer, from its `.tiktoken` file."""
    return load_tokenizer(TokenizerConfig(path=str(vocabulary), pattern="gpt2"))


def _pooled(task: Task, seed: int, work: Path, *, vocabulary: Path) -> Answer:
    begun = time.process_time()
    path = work / "pooled.safetensors"
    tokenizer, settings = gpt2(vocabulary), PooledSettings(seed=seed)
    train_pooled(task.texts, {_HEAD: task.labels}, tokenizer=tokenizer, output=path, settings=settings)
    seconds = time.process_time() - begun
    model = PooledModel(path)
    (rows,) = model.probabilities(tokenizer.encode_batch(task.test_texts))
    (head,) = model.info.heads
    return _answer(rows, head.labels, head.loss, seconds=seconds, path=path)


def _fasttext(task: Task, seed: int, work: Path, *, settings: TrainingSettings) -> Answer:
    begun = time.process_time()
    path = work / "fasttext.bin"
    train_classifier(task.texts, task.labels, output=path, settings=settings.model_copy(update={"seed": seed}))
    seconds = time.process_time() - begun
    model = FastTextModel(path, cached=False)
    rows = model.probabilities(task.test_texts, preparation=DEFAULT_PREPARATION)
    return _answer(rows, model.label_names, model.header.loss, seconds=seconds, path=path)


def _answer(rows: NumPyArray, names: Sequence[str], loss: str, *, seconds: float, path: Path) -> Answer:
    rule = _ARGMAX.for_labels(names, where=_HEAD, loss=loss)
    expected = None
    if all(name.isdigit() for name in names):
        values = np.array(names, float)
        expected = np.nan_to_num(rows / rows.sum(axis=1, keepdims=True) @ values, nan=values.mean())
    return Answer(
        labels=rule.labels(rows), expected=expected, training_seconds=seconds, model_bytes=path.stat().st_size
    )
