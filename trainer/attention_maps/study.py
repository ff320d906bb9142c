"""Study of the attention of text tokens to the metadata or meta tokens before them, by layer and head.

Each document is in a row of its own: bos, the wrapper with its metadata or meta tokens, and the start of the text.
Masses (`trainer.attention_maps.masses`) are averaged over a document's text tokens and then over documents.
"""

from __future__ import annotations

import numpy as np

from colophon.shards.layouts import MetaTokensLayout
from colophon.shards.stores.places import RunPlace
from colophon.trainer.attention_maps.bins import compare_bins
from colophon.trainer.attention_maps.masses import AttentionMasses, attention_masses, meta_token_attention
from colophon.trainer.attention_maps.parts import LabelledRows, labelled_rows, required_columns
from colophon.trainer.attention_maps.report import AttentionReport, PartReport
from colophon.trainer.data.annotation_compatibility import check_annotations
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.bootstrap import RatioDraws
from colophon.trainer.evaluation.document_crops import RunDocuments
from colophon.trainer.inference.codec import Codec
from colophon.trainer.inference.contexts import TrainedLayout
from colophon.trainer.inference.trained_model import TrainedModel, untrained


def study_attention(
    trained: TrainedModel,
    *,
    output: RunPlace,
    documents_output: RunPlace | None = None,
    tokenizer: Codec,
    layout: str | None = None,
    column: str | None = None,
    num_documents: int = 200,
    crop: int = 256,
    seed: int = 0,
) -> AttentionReport:
    """Measure the attention of text tokens to the parts of their row.

    Weights are computed in full: a row of L tokens needs layers x heads x L² numbers, one layer at a time.

    Args:
        trained: the model.
        output: the `output.path` of its recipe.
        documents_output: that of a different run with the same tokenizer, whose documents to read; None: the same.
        tokenizer: the one that the run was packed with.
        layout: one that the model was trained on in any phase, which decides the context; None: the one that it was
            validated on.
        column: an annotation column whose values are the bins that meta tokens are compared by.
        num_documents: documents to draw.
        crop: text tokens of each, from its start.
        seed: random seed of the draw, the intervals and the permutations.

    Raises:
        ShardError: the run has no documents, no such layout or no such column, or a file does not match its record.
        TrainerError: the model was not trained on the layout (the choices are listed); the layout has nothing before
            the text, or no meta tokens although a column is given; the documents have a different tokenizer, no
            metadata, or annotators different from the training's.
    """
    studied = _studied_layout(trained, layout)
    needed = required_columns(studied)
    if column is not None and not isinstance(studied.layout, MetaTokensLayout):
        raise TrainerError(f"layout {studied.name!r} has no meta tokens whose attention could be compared by {column}")
    run = RunDocuments(documents_output or output)
    run.check_tokenizer(trained.tokenizer)
    if studied.annotators is not None:
        check_annotations(needed, trained=studied.annotators, other=run.output)
    crops = run.crops(
        count=num_documents,
        crop=crop,
        seed=seed,
        columns=list(dict.fromkeys([*needed, *([] if column is None else [column])])),
        tokenizer=trained.tokenizer,
        decode=tokenizer.decode,
    )
    rows = labelled_rows(studied, crops.columns, num_documents=len(crops), tokenizer=tokenizer)
    if not len(rows.kept):
        raise TrainerError(f"none of {len(crops)} documents has metadata for layout {studied.name!r}")
    texts = [crops.text[document] for document in rows.kept]
    masses = attention_masses(trained, rows, texts)
    bins = None
    if column is not None:
        vectors, before = (meta_token_attention(model, rows, texts) for model in (trained, untrained(trained)))
        bins = compare_bins(vectors, before, crops.columns[column], column_name=column, seed=seed)
    return AttentionReport(
        name=trained.name,
        step=trained.state.step,
        layout=studied.name,
        documents=len(rows.kept),
        excluded=rows.excluded,
        crop=crop,
        seed=seed,
        parts=_part_reports(rows, masses, seed=seed),
        bins=bins,
    )


def _studied_layout(trained: TrainedModel, name: str | None) -> TrainedLayout:
    if name is None:
        return trained.layout
    if name not in trained.layouts:
        known = ", ".join(trained.layouts)
        raise TrainerError(f"{trained.name} was not trained on layout {name!r}; it was trained on {known}")
    return trained.layouts[name]


def _part_reports(rows: LabelledRows, masses: AttentionMasses, *, seed: int) -> list[PartReport]:
    num_documents, num_layers, _, num_parts = masses.mass.shape
    by_layer = masses.mass.mean(axis=2).transpose(2, 1, 0)  # [parts, layers, documents]
    # One row for each part over all layers, then one for each part and layer.
    amounts = np.concatenate([by_layer.mean(axis=1), by_layer.reshape(-1, num_documents)])
    draws = RatioDraws(amounts, np.ones((1, num_documents)), seed=seed)
    by_head = masses.mass.mean(axis=0, dtype=np.float64)
    return [
        PartReport(
            part=name,
            tokens=float(masses.tokens[:, part].mean()),
            uniform=float(masses.uniform[:, part].mean(dtype=np.float64)),
            mass=draws.ratio(part, 0),
            by_layer=[draws.ratio(num_parts + part * num_layers + layer, 0) for layer in range(num_layers)],
            by_head=by_head[:, :, part].tolist(),
        )
        for part, name in enumerate(rows.part_names)
    ]
