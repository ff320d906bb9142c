"""Losses of the held-out documents: the exact ones, and those of a trained model through Colophon's evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from hidden_markov import Answer, Floats

from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.evaluation.conditions import evaluate
from colophon.trainer.evaluation.document_crops import RunDocuments
from colophon.trainer.evaluation.settings import EvaluatedModel, EvaluationSettings
from colophon.trainer.inference.contexts import Condition, derangement
from colophon.trainer.inference.text_loss import text_losses
from colophon.trainer.inference.trained_model import TrainedModel

Record: TypeAlias = dict[str, Any]
_SEED = 0  # of the order in which documents get the class of another


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The documents that no model is trained on."""

    output: Path
    """`output.path` of the run that has their tokens and annotations."""
    tokenizer: Tokenizer
    exact: Answer
    """Their exact losses."""

    @property
    def num_documents(self) -> int:
        """N."""
        return len(self.exact.classes)

    @property
    def length(self) -> int:
        """Words of each document."""
        return self.exact.by_class.shape[2]

    @property
    def prompts(self) -> list[int]:
        """The first words of a document that are measured: 1, 2, 4, ..., all."""
        return [*(1 << i for i in range((self.length - 1).bit_length())), self.length]


def exact_record(held: HeldOut) -> Record:
    """The answer: nats of the first 1, 2, 4, ... words of a document, means over the documents.

    `with_class` and `without_class` are the lowest expected losses with and without the class before the text,
    `wrong_class` that of a perfect model that gets the class of another document.
    """
    exact, wrong = held.exact, held.exact.classes[derangement(held.num_documents, seed=_SEED)]
    losses = {"with_class": exact.with_class, "without_class": exact.without_class, "wrong_class": exact.given(wrong)}
    return {
        "documents": held.num_documents,
        "words": held.prompts,
        **{name: _sums(each, held.prompts) for name, each in losses.items()},
        "class": float(np.log(exact.by_class.shape[1])),
        "class_after_text": float(exact.class_after_text.mean()),
        "class_accuracy": float((exact.posterior.argmax(axis=1) == exact.classes).mean()),
    }


def _sums(losses: Floats, prompts: Sequence[int]) -> list[float]:
    """Mean over documents of the loss of the first words, from losses [N, T]."""
    totals = losses.mean(axis=0).cumsum()
    return [float(totals[words - 1]) for words in prompts]


def measure(trained: TrainedModel, *, held: HeldOut) -> Record:
    """The losses of a model in nats, means over the held-out documents, each under the contexts of its layout.

    `loss` has the losses of the first 1, 2, 4, ... words with the context that the layout is for, `loss_wrong` those
    with the metadata of another document, where metadata is before the text. `class_after_text` is the loss of the
    class, where it is after the text.
    """
    model = EvaluatedModel(trained=trained)
    own, *_ = model.layout.conditions
    record: Record = {"loss": _losses(model, own, held=held)}
    if model.layout.reads_metadata:
        record["loss_wrong"] = _losses(model, "shuffled", held=held)
    if model.layout.layout.position == "append":
        record["class_after_text"] = _class_loss(model, held=held)
    return record


def _losses(model: EvaluatedModel, condition: Condition, *, held: HeldOut) -> list[float]:
    """Nats of the first words of a document, for each number of words."""
    found = []
    for words in held.prompts:
        settings = EvaluationSettings(documents=held.num_documents, crop=words, conditions=(condition,), seed=_SEED)
        measured = evaluate([model], documents=RunDocuments(held.output), tokenizer=held.tokenizer, settings=settings)
        found.append(float(measured.measurements[0].nats.mean()))
    return found


def _class_loss(model: EvaluatedModel, *, held: HeldOut) -> float:
    """Nats of the class after the text and boc."""
    layout, special = model.layout, model.layout.special
    crops = RunDocuments(held.output).crops(
        count=held.num_documents,
        crop=held.length,
        seed=_SEED,
        columns=layout.layout.fields,
        tokenizer=model.trained.tokenizer,
        decode=held.tokenizer.decode,
    )
    classes = layout.metadata(crops.columns, num_documents=len(crops), encoder=held.tokenizer)
    prefixes = [[special.bos, *map(int, text), special.boc] for text in crops.text]
    return float(text_losses(model.trained, prefixes, [ids for ids in classes if ids is not None]).mean())
