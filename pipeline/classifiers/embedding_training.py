"""Training of an `embedding` classifier on texts: vectors, weights, the model's file and its card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from colophon.annotators.embedding.model import EmbeddingInfo, EmbeddingModel, VectorSource, vectors_of
from colophon.annotators.heads.head import Floats
from colophon.annotators.heads.tensor_file import write_model
from colophon.pipeline.classifiers.heads import (
    BATCH_ROWS,
    Labels,
    TrainedHeads,
    evaluate_heads,
    heads_of,
    model_path,
    targets_of,
    write_card,
)
from colophon.pipeline.errors import UsageError

if TYPE_CHECKING:  # torch is loaded by what trains
    from colophon.trainer.classifiers.settings import EmbeddingSettings


def train_embedding(
    texts: pa.Array,
    labels: Labels,
    *,
    embedder: Callable[[], VectorSource],
    output: str | Path,
    settings: EmbeddingSettings,
    test: tuple[pa.Array, Labels] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> TrainedHeads:
    """Train a head for each column of labels on the vectors of texts; write them to `output`, and a card beside it.

    Equal vectors, settings and seed give equal files on one kind of machine. Memory: 4 * dim bytes a text.

    Args:
        texts: string [n]; of a `VectorColumn` its vectors.
        labels: the labels of each head.
        embedder: builds the embedder.
        output: path of the model, usually ending in `.safetensors`; its folder is created.
        settings: parameters of the heads and of their training.
        test: texts and labels for the scores in the card; heads of list<string> are not among them.
        report: called with a human-readable line for each event.

    Raises:
        UsageError: a head has fewer than two labels, or no text has a vector.
        AnnotatorError: the embedder cannot be used, or `output` cannot be written.
    """
    path = model_path(output)
    heads = heads_of(labels, hidden=settings.hidden)
    built = embedder()
    built.load()
    vectors = _vectors(built, texts)
    is_known = np.isfinite(vectors).all(axis=1)
    if not is_known.any():
        raise UsageError("the embedder has a vector for none of the texts")
    report(f"{int(is_known.sum()):,} vectors of {vectors.shape[1]} numbers")
    from colophon.trainer.classifiers.fitting import fit_heads

    kept = pa.array(is_known)
    targets = [targets_of(head, labels[head.name].filter(kept)) for head in heads]
    info = EmbeddingInfo(embedder=built.identity, dim=vectors.shape[1], heads=heads)
    write_model(path, info, fit_heads(vectors[is_known], targets, settings, report=report))
    model = EmbeddingModel(path, lambda: built)
    reports = {} if test is None else evaluate_heads(heads, model.probabilities, *test)
    card = write_card(path, info, settings, labels, reports, sizes={"dim": info.dim})
    return TrainedHeads(path=path, card=card, reports=reports)


def _vectors(embedder: VectorSource, texts: pa.Array) -> Floats:
    """float32 [texts, dim]; a batch without a text that has a vector is NaN."""
    parts = [vectors_of(embedder, texts.slice(start, BATCH_ROWS)) for start in range(0, len(texts), BATCH_ROWS)]
    dims = {part.shape[1] for part in parts if part.shape[1]}
    if len(dims) > 1:
        raise UsageError(f"the embedder's vectors have different lengths: {sorted(dims)}")
    dim = dims.pop() if dims else 0
    return np.concatenate([part if part.shape[1] else np.full((len(part), dim), np.nan, np.float32) for part in parts])
