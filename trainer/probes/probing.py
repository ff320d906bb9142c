"""Probes that predict a document's topic, quality or host from a model's frozen states, layer by layer.

The model reads documents without metadata, which would reveal the label: bos and text, or bos, an empty wrapper and
text. On the states of each layer (`trainer.probes.states`) a linear probe and a 3-layer MLP are fitted. There are three
controls: the most frequent class, probes fitted on several permutations of the labels, and probes on the model before
its first training step. The states of the trained and the untrained model differ most in their scale, so `conditioned`
removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.stores.places import RunPlace
from colophon.trainer.data.annotation_compatibility import different_annotators
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.bootstrap import Estimate
from colophon.trainer.evaluation.document_crops import DocumentCrops, RunDocuments
from colophon.trainer.inference.codec import Decode
from colophon.trainer.inference.contexts import TrainedLayout
from colophon.trainer.inference.trained_model import TrainedModel, untrained
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.probes.features import conditioned
from colophon.trainer.probes.fits import Fit, Split
from colophon.trainer.probes.labels import BY_DOCUMENT, LabelledDocuments, label_documents
from colophon.trainer.probes.linear import fit_linear
from colophon.trainer.probes.mlp import fit_mlp
from colophon.trainer.probes.report import (
    CONTEXTS,
    CONTROLS,
    STATES,
    ColumnReport,
    Control,
    Kind,
    ProbeContext,
    ProbeReport,
    ProbeResult,
    ProbeWarning,
    Score,
)
from colophon.trainer.probes.scores import ScoreDraws
from colophon.trainer.probes.states import document_states

PERMUTATIONS = 5
_ROUNDING = 1e-9


def probe(
    trained: TrainedModel,
    *,
    output: RunPlace,
    documents_output: RunPlace | None = None,
    decode: Decode,
    columns: Sequence[str],
    num_documents: int = 2000,
    crop: int = 256,
    layers: Sequence[int] | None = None,
    context: str = "none",
    split_by: str = "url_registered_domain",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> ProbeReport:
    """Fit probes for annotation columns on a model's states.

    Costs one pass of the model and one of the untrained model over num_documents x crop tokens, and memory of about
    32 x num_documents x layers x hidden_size bytes.

    Args:
        trained: the model.
        output: the `output.path` of its recipe.
        documents_output: that of a different run with the same tokenizer, whose documents to read; None: the same.
        decode: from ids to text.
        columns: annotation columns whose values are the classes, see `label_documents`.
        num_documents: documents to draw.
        crop: text tokens of each, from its start.
        layers: 0: the embedding; n: after layer n; None: all.
        context: `none` (bos alone), or `empty` (an empty wrapper).
        split_by: an annotation column, each value of which is in one of training, validation and test alone; or
            `document`.
        permutations: of the labels for the control with shuffled labels; their probes take most of the time.
        seed: random seed of the draw, the probes, the shuffling and the intervals.
        report: receives lines on the progress.

    Raises:
        ShardError: the run has no documents or no such column, or a file does not match its record.
        TrainerError: the layer or the context does not exist (the choices are listed), the documents have a different
            tokenizer, or fewer than two classes have enough documents.
    """
    chosen = _chosen_layers(layers, trained.model)
    layout = trained.layout
    chosen_context = _chosen_context(context, layout)
    run = RunDocuments(documents_output or output)
    run.check_tokenizer(trained.tokenizer)
    needed = dict.fromkeys([*columns, *([] if split_by == BY_DOCUMENT else [split_by])])
    crops = run.crops(
        count=num_documents, crop=crop, seed=seed, columns=list(needed), tokenizer=trained.tokenizer, decode=decode
    )
    labelled = {name: _label(crops, name, split_by) for name in columns}
    prefix = layout.prefix([] if chosen_context == "empty" else None)
    report(f"{len(crops):,} documents, {int(crops.num_tokens.sum()):,} text tokens, layers {_layer_names(chosen)}")
    models = {"trained": trained.model, "untrained": untrained(trained).model}
    states = {name: document_states(model, prefix, crops.text, layers=chosen) for name, model in models.items()}
    reports = []
    for name, documents in labelled.items():
        report(f"{name}: {len(documents.rows):,} documents of {len(documents.classes)} classes")
        reports.append(_probe_column(name, documents, states, layers=chosen, permutations=permutations, seed=seed))
    return ProbeReport(
        name=trained.name,
        step=trained.state.step,
        output=str(run.output),
        context=chosen_context,
        documents=len(crops),
        crop=crop,
        seed=seed,
        columns=reports,
        notes=_notes(layout, columns, run.output),
    )


def _chosen_layers(layers: Sequence[int] | None, model: Decoder) -> list[int]:
    available = range(len(model.layers) + 1)
    unknown = [layer for layer in layers or () if layer not in available]
    if unknown:
        raise TrainerError(f"no layer {unknown[0]}; available: 0 (the embedding) to {available[-1]}")
    return sorted(set(layers)) if layers else list(available)


def _chosen_context(name: str, layout: TrainedLayout) -> ProbeContext:
    """The context called `name`, if the model has learnt to read it."""
    if name not in CONTEXTS:
        raise TrainerError(f"unknown context {name!r}; available: {', '.join(CONTEXTS)}")
    known = [context for context in CONTEXTS if context in layout.conditions]
    for context in known:
        if context == name:
            return context
    raise TrainerError(f"layout {layout.name!r} has no context {name!r}; available: {', '.join(known)}")


def _notes(layout: TrainedLayout, columns: Sequence[str], documents_output: RunPlace) -> tuple[str, ...]:
    if layout.annotators is None:
        return ()
    lines = different_annotators(columns, trained=layout.annotators, other=documents_output)
    return tuple(f"{line}: its classes are not those of the training" for line in lines)


def _layer_names(layers: Sequence[int]) -> str:
    """`0, 1, 2`, or `0 to 12` for four layers and more."""
    return ", ".join(map(str, layers)) if len(layers) < 4 else f"{layers[0]} to {layers[-1]}"


def _label(crops: DocumentCrops, name: str, split_by: str) -> LabelledDocuments:
    groups = None if split_by == BY_DOCUMENT else crops.columns[split_by]
    return label_documents(crops.columns[name], groups, name=name, split_by=split_by)


def _probe_column(
    name: str,
    documents: LabelledDocuments,
    states: dict[str, Tensor],
    *,
    layers: Sequence[int],
    permutations: int,
    seed: int,
) -> ColumnReport:
    split, num_classes = documents.split, len(documents.classes)
    truth = documents.labels[split.test]
    draws = ScoreDraws(truth, documents.groups[split.test], num_classes=num_classes, seed=seed)
    most_frequent = np.bincount(documents.labels[split.train]).argmax()
    majority = _score(draws, np.full(len(truth), most_frequent))
    results = [
        result
        for kind, fits in _fits(documents, states, num_classes=num_classes, permutations=permutations, seed=seed)
        for result in _results(kind, fits, draws, layers=layers, majority=majority)
    ]
    return ColumnReport(
        column=name,
        split_by=documents.split_by,
        classes=documents.counts(),
        groups={part: len(np.unique(documents.groups[index])) for part, index in split.named().items()},
        excluded=documents.excluded,
        majority=majority,
        permutations=permutations,
        results=sorted(results, key=lambda r: (r.layer, r.states, r.probe, CONTROLS.index(r.model))),
    )


def _results(
    kind: Kind,
    fits: Mapping[Control, Sequence[tuple[Fit, ...]]],
    draws: ScoreDraws,
    *,
    layers: Sequence[int],
    majority: Score,
) -> Iterator[ProbeResult]:
    """The results of one kind of probe, for the trained model and its controls."""
    untrained_accuracies = [draws.accuracy(fit.classes) for (fit,) in fits["untrained"]]
    for control, number in product(CONTROLS, range(len(fits["trained"]))):
        fit, *others = fits[control][number]
        scores = [_score(draws, one.classes) for one in (fit, *others)]
        score = _over_permutations(scores) if control == "shuffled" else scores[0]
        gain = draws.accuracy(fit.classes) - untrained_accuracies[number] if control == "trained" else None
        yield ProbeResult(
            layer=layers[number // len(STATES)],  # fits are [layer 0 last, layer 0 mean, layer 1 last, ...]
            states=STATES[number % len(STATES)],
            probe=kind,
            model=control,
            score=score,
            accuracy_over_untrained=None if gain is None else draws.estimate(gain),
            chosen=fit.chosen,
            epochs=fit.epochs,
            warnings=_warnings(fit, score, majority),
        )


def _fits(
    documents: LabelledDocuments, states: dict[str, Tensor], *, num_classes: int, permutations: int, seed: int
) -> Iterator[tuple[Kind, dict[Control, list[tuple[Fit, ...]]]]]:
    """Yield the fits of each kind of probe, for the trained model and its controls, each [num_layers x 2].

    There is one fit each, and one for each permutation with shuffled labels.
    """
    split, random = documents.split, np.random.default_rng(seed)
    features = {name: _features(of_model, documents.rows, split) for name, of_model in states.items()}
    inputs: dict[Control, tuple[Tensor, list[NumPyArray]]] = {
        "trained": (features["trained"], [documents.labels]),
        "untrained": (features["untrained"], [documents.labels]),
        "shuffled": (features["trained"], [random.permutation(documents.labels) for _ in range(permutations)]),
    }
    linear, mlp = partial(fit_linear, num_classes=num_classes), partial(fit_mlp, num_classes=num_classes, seed=seed)
    kinds: tuple[tuple[Kind, Callable[[Tensor, NumPyArray, Split], list[Fit]]], ...] = (
        ("linear", linear),
        ("mlp", mlp),
    )
    for kind, fit in kinds:
        yield (
            kind,
            {
                name: list(zip(*(fit(given, labels, split) for labels in of_control), strict=True))
                for name, (given, of_control) in inputs.items()
            },
        )


def _features(states: Tensor, rows: NumPyArray, split: Split) -> Tensor:
    """float32 [num_layers x 2, n, d] from [num_layers, 2, num_documents, d]."""
    return conditioned(states.index_select(2, torch.from_numpy(rows).to(states.device)).flatten(0, 1), split.train)


def _warnings(fit: Fit, score: Score, majority: Score) -> tuple[ProbeWarning, ...]:
    is_above = score.accuracy.value > majority.accuracy.value + _ROUNDING
    of_score: list[ProbeWarning] = [] if is_above else ["not_above_majority"]
    return (*([] if fit.warning is None else [fit.warning]), *of_score)


def _over_permutations(scores: Sequence[Score]) -> Score:
    """The mean over permutations, with the lowest and the highest instead of an interval."""
    return Score(
        accuracy=_spread([score.accuracy.value for score in scores]),
        macro_f1=_spread([score.macro_f1.value for score in scores]),
    )


def _spread(values: Sequence[float]) -> Estimate:
    return Estimate(sum(values) / len(values), min(values), max(values))


def _score(draws: ScoreDraws, predicted: NumPyArray) -> Score:
    return Score(accuracy=draws.estimate(draws.accuracy(predicted)), macro_f1=draws.estimate(draws.macro_f1(predicted)))
