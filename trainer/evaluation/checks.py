"""Checks and choices before an evaluation: conditions, crop, and annotations that mean the same as in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from colophon.shards.stores.places import RunPlace
from colophon.trainer.data.annotation_compatibility import check_annotations, different_annotators
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.settings import DEFAULT_CROP, EvaluatedModel
from colophon.trainer.inference.contexts import Condition, max_text_tokens_by_layout

_METADATA_CONDITIONS: tuple[Condition, ...] = ("true", "shuffled")


def chosen_conditions(
    models: Sequence[EvaluatedModel], asked: tuple[Condition, ...] | None
) -> list[tuple[Condition, ...]]:
    """The conditions to measure for each model, in a fixed order.

    Raises:
        TrainerError: a model's layout has none of those that were asked for.
    """
    chosen = []
    for model in models:
        known = model.layout.conditions
        conditions = tuple(condition for condition in known if asked is None or condition in asked)
        if not conditions:
            raise TrainerError(
                f"{model.name}: layout {model.layout.name!r} has none of the conditions {', '.join(asked or ())}; "
                f"it has {', '.join(known)}"
            )
        chosen.append(conditions)
    return chosen


def check_metadata(
    models: Sequence[EvaluatedModel], conditions: Sequence[tuple[Condition, ...]], documents_output: RunPlace
) -> None:
    """Refuse metadata that means something else than in training: `true` would not be true.

    Raises:
        TrainerError: an annotator of a layout's template has a different model, different edges or settings.
    """
    for model, measured in zip(models, conditions, strict=True):
        layout = model.layout
        if layout.annotators is None or not {*measured} & {*_METADATA_CONDITIONS}:
            continue
        others = ",".join(condition for condition in layout.conditions if condition not in _METADATA_CONDITIONS)
        check_annotations(
            layout.layout.fields,
            trained=layout.annotators,
            other=documents_output,
            instead=f"; or --conditions {others}",
        )


def chosen_crop(models: Sequence[EvaluatedModel], asked: int | None, *, report: Callable[[str], None]) -> int:
    """Tokens of each text to score, so many that every model reads them within the length of its training rows.

    Raises:
        TrainerError: more were asked for than a training row holds.
    """
    if asked is None:
        return _default_crop(models, report=report)
    shortest = min((model.layout for model in models), key=lambda layout: layout.max_text_tokens)
    if asked > shortest.max_text_tokens:
        raise TrainerError(
            f"crop {asked}: rows of {shortest.name!r} have {shortest.sequence_length} tokens, "
            f"at most {shortest.max_text_tokens} beside the longest context"
        )
    return asked


def _default_crop(models: Sequence[EvaluatedModel], *, report: Callable[[str], None]) -> int:
    """The default counts all packed layouts of the models' runs, so it is the same for any choice of their models."""
    sizes = [(model.layout.max_text_tokens, model.layout.name) for model in models]
    for output in _packing_outputs(models):
        sizes += [(size, name) for name, size in max_text_tokens_by_layout(output).items()]
    size, name = min(sizes)
    if size >= DEFAULT_CROP:
        return DEFAULT_CROP
    report(
        f"scoring the first {size} tokens of each document: rows of layout {name!r} hold no more beside the longest "
        "context (--crop sets another number)"
    )
    return size


def annotation_notes(models: Sequence[EvaluatedModel], columns: Sequence[str], documents_output: RunPlace) -> list[str]:
    """A line for each annotator of `columns` whose values mean something else than in a model's training."""
    lines = [
        f"{line}: its groups are not those of the training"
        for model in models
        if model.layout.annotators is not None
        for line in different_annotators(columns, trained=model.layout.annotators, other=documents_output)
    ]
    return list(dict.fromkeys(lines))


def _packing_outputs(models: Sequence[EvaluatedModel]) -> list[RunPlace]:
    """The outputs of the runs that packed the models' layouts, each once."""
    found = dict.fromkeys(model.layout.output for model in models)
    return [output for output in found if output is not None]
