"""Losses of the same texts for each model with and without their metadata.

Texts are the first tokens of documents, the same ids for every layout, each alone in its row after bos and its context.
Only text counts. Differences between conditions and between models are paired over documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import AppendLayout
from colophon.shards.metadata import TextEncoder
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.checks import annotation_notes, check_metadata, chosen_conditions, chosen_crop
from colophon.trainer.evaluation.document_crops import DocumentCrops, RunDocuments
from colophon.trainer.evaluation.metadata_accuracy import metadata_accuracy
from colophon.trainer.evaluation.results import Evaluation, Measurement, Origin
from colophon.trainer.evaluation.settings import EvaluatedModel, EvaluationSettings
from colophon.trainer.inference.codec import Codec
from colophon.trainer.inference.contexts import Condition, TrainedLayout
from colophon.trainer.inference.text_loss import text_losses


def evaluate(
    models: Sequence[EvaluatedModel],
    *,
    documents: RunDocuments,
    tokenizer: Codec,
    settings: EvaluationSettings,
    report: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Score the same texts with every model under every condition.

    Args:
        models: the models, all with the same tokenizer.
        documents: the source of texts and their metadata.
        tokenizer: the recipe's, which encoded the documents.
        settings: the documents, conditions and groups to measure.
        report: receives a line on a crop below the default or few held-out documents, a line for each column of `by`
            whose values mean something else than in training, and a line before each condition.

    Raises:
        ShardError: a file does not match its record, or a column does not exist.
        TrainerError: the documents have a different tokenizer or annotators different from the training's, a layout has
            none of the conditions, or the crop does not fit in a model's training rows.
    """
    for model in models:
        documents.check_tokenizer(model.trained.tokenizer)
    conditions = chosen_conditions(models, settings.conditions)
    check_metadata(models, conditions, documents.output)
    crop = chosen_crop(models, settings.crop, report=report)
    notes = annotation_notes(models, settings.by, documents.output)
    for note in notes:
        report(note)
    with_metadata = [m for m, measured in zip(models, conditions, strict=True) if _needs_metadata(m, measured)]
    fields = [name for model in with_metadata for name in model.layout.layout.fields]
    crops = documents.crops(
        count=settings.documents,
        crop=crop,
        seed=settings.seed,
        columns=list(dict.fromkeys([*settings.by, *fields])),
        tokenizer=models[0].trained.tokenizer,
        decode=tokenizer.decode,
    )
    _check_number(crops, documents, conditions, settings=settings, report=report)
    measurements = []
    for model, measured in zip(models, conditions, strict=True):
        for condition in measured:
            report(f"{model.name}: {len(crops)} documents, {condition}")
            measurements.append(_measure(model, condition, crops, encoder=tokenizer, seed=settings.seed))
    appended = [model for model in with_metadata if isinstance(model.layout.layout, AppendLayout)]
    accuracies = {model.name: metadata_accuracy(model, crops, tokenizer=tokenizer) for model in appended}
    return Evaluation(
        models=models,
        documents=crops,
        measurements=measurements,
        settings=settings,
        output=documents.output,
        origin=_origin(models, documents),
        metadata=accuracies,
        crop=crop,
        notes=notes,
    )


def _check_number(
    crops: DocumentCrops,
    documents: RunDocuments,
    conditions: Sequence[Sequence[Condition]],
    *,
    settings: EvaluationSettings,
    report: Callable[[str], None],
) -> None:
    """Report that fewer documents are held out than asked for.

    Raises:
        TrainerError: one document is too few for a condition.
    """
    if documents.is_held_out and len(crops) < settings.documents:
        report(
            f"{len(crops):,} documents with text were held out by every model, fewer than --documents "
            f"{settings.documents:,}: a larger validation_rows holds out more"
        )
    if len(crops) < 2 and any("shuffled" in measured for measured in conditions):
        raise TrainerError(
            f"one document of {documents.output} is drawn, and shuffled metadata needs two: --documents 2 or more, or "
            "--conditions without shuffled"
        )


def _needs_metadata(model: EvaluatedModel, measured: Sequence[Condition]) -> bool:
    return model.layout.reads_metadata or (isinstance(model.layout.layout, AppendLayout) and "true" in measured)


def _origin(models: Sequence[EvaluatedModel], documents: RunDocuments) -> Origin:
    if documents.is_held_out:
        return "held_out"
    trained_on = {layout.output.resolve() for m in models for layout in m.trained.layouts.values() if layout.output}
    return "trained_on" if documents.output.resolve() in trained_on else "other_run"


def _measure(
    model: EvaluatedModel, condition: Condition, crops: DocumentCrops, *, encoder: TextEncoder, seed: int
) -> Measurement:
    layout = model.layout
    metadata = _metadata(layout, crops.columns, num_documents=len(crops), encoder=encoder)
    prefixes = layout.prefixes(condition, metadata, seed=seed)
    same = None
    if condition == "shuffled":
        same = sum(map(list.__eq__, prefixes, layout.prefixes("true", metadata, seed=seed)))
    return Measurement(
        model=model.name,
        condition=condition,
        nats=text_losses(model.trained, prefixes, crops.text),
        documents_with_own_metadata=same,
    )


def _metadata(
    layout: TrainedLayout, columns: Mapping[str, pa.Array], *, num_documents: int, encoder: TextEncoder
) -> Sequence[NumPyArray | None]:
    if not layout.reads_metadata:
        return [None] * num_documents
    return layout.metadata(columns, num_documents=num_documents, encoder=encoder)
