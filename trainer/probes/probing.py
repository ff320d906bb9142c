"""Is a document's topic, quality or host readable from a model's frozen states, and from which layer on?

Documents are read without metadata, which would tell the label: bos and text, or bos, an empty wrapper and text. Of
each layer there are two vectors a document: the state of its last text token, and the mean over its text tokens. On
each a linear probe and a 3-layer MLP are fitted. What they give is to be held against three controls: the most frequent
class, probes fitted on shuffled labels, and the same probes on the states of the model as it was before training. The
trained and the untrained model's states differ most in how they are scaled, so probes see them without that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.data.annotation_compatibility import different_annotators
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.document_crops import Decode, DocumentCrops, RunDocuments
from colophon.trainer.inference.contexts import TrainedLayout, layout_of
from colophon.trainer.inference.padding import padded_batches
from colophon.trainer.inference.trained_model import TrainedModel, untrained
from colophon.trainer.model import Decoder, row_positions
from colophon.trainer.probes.features import conditioned
from colophon.trainer.probes.fits import Fit, Parts
from colophon.trainer.probes.labels import BY_DOCUMENT, LabelledDocuments, label_documents
from colophon.trainer.probes.linear import fit_linear
from colophon.trainer.probes.mlp import fit_mlp
from colophon.trainer.probes.report import (
    CONTEXTS,
    CONTROLS,
    STATES,
    ColumnReport,
    Context,
    Control,
    Doubt,
    Kind,
    ProbeReport,
    ProbeResult,
    Score,
)
from colophon.trainer.probes.scores import ScoreDraws

Report = Callable[[str], None]

_SAME = 1e-9
_TOKENS_AT_ONCE = 8192


def probe(
    trained: TrainedModel,
    *,
    output: Path,
    documents_output: Path | None = None,
    decode: Decode,
    columns: Sequence[str],
    num_documents: int = 2000,
    crop: int = 256,
    layers: Sequence[int] | None = None,
    context: str = "none",
    split_by: str = "url_registered_domain",
    seed: int = 0,
    report: Report = lambda line: None,
) -> ProbeReport:
    """Fit probes for annotation columns on a model's states.

    Costs a pass of the model and of an untrained one over num_documents x crop tokens, and memory of some 32 x
    num_documents x layers x hidden_size bytes.

    Args:
        trained: the model.
        output: the `output.path` of its recipe.
        documents_output: that of another run with the same tokenizer, whose documents to read; None: the same.
        decode: the tokenizer's text of ids.
        columns: annotation columns whose values are the classes, see `label_documents`.
        num_documents: to draw.
        crop: text tokens of each, from its start.
        layers: 0: the embedding; n: after layer n; None: all.
        context: before the text: nothing, or an empty wrapper.
        split_by: an annotation column whose values are never divided between training, validation and test documents;
            or `document`.
        seed: of the draw, the probes, the shuffling and the intervals.
        report: gets lines for a person.

    Raises:
        ShardError: the run has no documents, or files that do not fit their records.
        TrainerError: a column, a layer or a context that is not there (the choices are listed), documents of another
            tokenizer, or too few of too few classes.
    """
    chosen = _chosen_layers(layers, trained.model)
    layout = layout_of(trained.config, output=output)
    shown = _chosen_context(context, layout)
    run = RunDocuments(documents_output or output)
    run.check_tokenizer(trained.tokenizer)
    needed = dict.fromkeys([*columns, *([] if split_by == BY_DOCUMENT else [split_by])])
    crops = run.crops(
        count=num_documents, crop=crop, seed=seed, columns=list(needed), tokenizer=trained.tokenizer, decode=decode
    )
    labelled = {name: _label(crops, name, split_by) for name in columns}
    prefix = layout.prefix([] if shown == "empty" else None)
    report(f"{len(crops):,} documents, {int(crops.num_tokens.sum()):,} text tokens, layers {_listed(chosen)}")
    models = {"trained": trained.model, "untrained": untrained(trained).model}
    states = {name: document_states(model, prefix, crops.text, layers=chosen) for name, model in models.items()}
    found = []
    for name, documents in labelled.items():
        report(f"{name}: {len(documents.rows):,} documents of {len(documents.classes)} classes")
        found.append(_probe_column(name, documents, states, layers=chosen, seed=seed))
    return ProbeReport(
        name=trained.name,
        step=trained.state.step,
        output=str(run.output),
        context=shown,
        documents=len(crops),
        crop=crop,
        seed=seed,
        columns=found,
        notes=_notes(layout, columns, run.output),
    )


@torch.no_grad()
def document_states(
    model: Decoder, prefix: Sequence[int], texts: Sequence[NumPyArray], *, layers: Sequence[int]
) -> Tensor:
    """float32 [num_layers, 2, num_documents, hidden_size] on the model's device: of each layer the state of a
    document's last text token, and the mean of those of all its text tokens; never of its prefix.

    Args:
        model: where it computes.
        prefix: ids before each text.
        texts: ids of each text, at least one.
        layers: ascending; 0: the embedding; n: after layer n.
    """
    device = model.embed_tokens.weight.device
    rows = [np.concatenate([np.asarray(prefix, np.int64), text]) for text in texts]
    result = torch.empty(len(layers), len(STATES), len(rows), model.config.hidden_size, device=device)
    for batch, ids, row_lengths in padded_batches(rows, max_size=_TOKENS_AT_ONCE):
        input_ids, lengths = ids.to(device), row_lengths.to(device)
        index = torch.arange(input_ids.shape[1], device=device)
        is_text = (index >= len(prefix)) & (index < lengths[:, None])
        pooled: list[Tensor] = []

        def pool(
            states: Tensor, is_text: Tensor = is_text, lengths: Tensor = lengths, pooled: list[Tensor] = pooled
        ) -> None:
            states = states.float()
            last = states[torch.arange(len(states), device=states.device), lengths - 1]
            total = torch.einsum("blh,bl->bh", states, is_text.float())
            pooled.append(torch.stack([last, total / is_text.sum(dim=1, keepdim=True)]))

        model.hidden_states(input_ids, row_positions(input_ids), None, visit=pool)
        result[:, :, torch.from_numpy(batch).to(device)] = torch.stack([pooled[layer] for layer in layers])
    return result


def _chosen_layers(layers: Sequence[int] | None, model: Decoder) -> list[int]:
    available = range(len(model.layers) + 1)
    unknown = [layer for layer in layers or () if layer not in available]
    if unknown:
        raise TrainerError(f"no layer {unknown[0]}; available: 0 (the embedding) to {available[-1]}")
    return sorted(set(layers)) if layers else list(available)


def _chosen_context(name: str, layout: TrainedLayout) -> Context:
    """What stands before the text, if the model has learnt to read it."""
    if name not in CONTEXTS:
        raise TrainerError(f"unknown context {name!r}; available: {', '.join(CONTEXTS)}")
    known = [context for context in CONTEXTS if context in layout.conditions]
    for context in known:
        if context == name:
            return context
    raise TrainerError(f"layout {layout.name!r} has no context {name!r}; available: {', '.join(known)}")


def _notes(layout: TrainedLayout, columns: Sequence[str], documents_output: Path) -> tuple[str, ...]:
    if layout.output is None:
        return ()
    lines = different_annotators(columns, trained=layout.output, other=documents_output)
    return tuple(f"{line}: its classes are not those of the training" for line in lines)


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers)) if len(layers) < 4 else f"{layers[0]} to {layers[-1]}"


def _label(crops: DocumentCrops, name: str, split_by: str) -> LabelledDocuments:
    groups = None if split_by == BY_DOCUMENT else crops.columns[split_by]
    return label_documents(crops.columns[name], groups, name=name, split_by=split_by)


def _probe_column(
    name: str, documents: LabelledDocuments, states: dict[str, Tensor], *, layers: Sequence[int], seed: int
) -> ColumnReport:
    parts, num_classes = documents.parts, len(documents.classes)
    truth = documents.labels[parts.test]
    draws = ScoreDraws(truth, documents.groups[parts.test], num_classes=num_classes, seed=seed)
    most_frequent = np.bincount(documents.labels[parts.train]).argmax()
    majority = _score(draws, np.full(len(truth), most_frequent))
    results: list[ProbeResult] = []
    for kind, fits in _fits(documents, states, num_classes=num_classes, seed=seed):
        untrained_accuracies = [draws.accuracy(fit.classes) for fit in fits["untrained"]]
        for control, number in product(CONTROLS, range(len(fits["trained"]))):
            fit = fits[control][number]
            score = _score(draws, fit.classes)
            gain = draws.accuracy(fit.classes) - untrained_accuracies[number] if control == "trained" else None
            results.append(
                ProbeResult(
                    layer=layers[number // len(STATES)],
                    states=STATES[number % len(STATES)],
                    probe=kind,
                    model=control,
                    score=score,
                    accuracy_over_untrained=None if gain is None else draws.estimate(gain),
                    chosen=fit.chosen,
                    epochs=fit.epochs,
                    doubts=_doubts(fit, score, majority),
                )
            )
    return ColumnReport(
        column=name,
        split_by=documents.split_by,
        classes=documents.counts(),
        groups={part: len(np.unique(documents.groups[index])) for part, index in parts.named().items()},
        left_out=documents.left_out,
        majority=majority,
        results=sorted(results, key=lambda r: (r.layer, r.states, r.probe, CONTROLS.index(r.model))),
    )


def _fits(
    documents: LabelledDocuments, states: dict[str, Tensor], *, num_classes: int, seed: int
) -> Iterator[tuple[Kind, dict[Control, list[Fit]]]]:
    """Of both kinds the probes of the trained model and its controls, each [num_layers x 2]."""
    parts, shuffled = documents.parts, np.random.default_rng(seed).permutation(documents.labels)
    features = {name: _features(every, documents.rows, parts) for name, every in states.items()}
    given: dict[Control, tuple[Tensor, NumPyArray]] = {
        "trained": (features["trained"], documents.labels),
        "untrained": (features["untrained"], documents.labels),
        "shuffled": (features["trained"], shuffled),
    }
    yield "linear", {name: fit_linear(*each, parts, num_classes=num_classes) for name, each in given.items()}
    yield "mlp", {name: fit_mlp(*each, parts, num_classes=num_classes, seed=seed) for name, each in given.items()}


def _features(states: Tensor, rows: NumPyArray, parts: Parts) -> Tensor:
    """float32 [num_layers x 2, n, d] from [num_layers, 2, num_documents, d]."""
    return conditioned(states.index_select(2, torch.from_numpy(rows).to(states.device)).flatten(0, 1), parts.train)


def _doubts(fit: Fit, score: Score, majority: Score) -> tuple[Doubt, ...]:
    is_above = score.accuracy.value > majority.accuracy.value + _SAME
    no_better: list[Doubt] = [] if is_above else ["not_above_majority"]
    return (*([] if fit.doubt is None else [fit.doubt]), *no_better)


def _score(draws: ScoreDraws, predicted: NumPyArray) -> Score:
    return Score(accuracy=draws.estimate(draws.accuracy(predicted)), macro_f1=draws.estimate(draws.macro_f1(predicted)))
