"""Training of a `pooled` classifier on texts: ids, rows, weights, the model's file and its card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from colophon.annotators.heads.tensor_file import write_model
from colophon.annotators.pooled.model import PooledModel, features_of, ids_and_offsets
from colophon.annotators.pooled.model_file import PooledInfo, TokenizerIdentity
from colophon.pipeline.classifiers.heads import (
    Labels,
    TrainedHeads,
    evaluate_heads,
    heads_of,
    model_path,
    targets_of,
    write_card,
)
from colophon.pipeline.classifiers.token_units import token_units
from colophon.pipeline.errors import UsageError
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:  # torch is loaded by what trains
    from colophon.trainer.classifiers.bags import Bags
    from colophon.trainer.classifiers.settings import PooledSettings

_LARGEST = 127


def train_pooled(
    texts: pa.Array,
    labels: Labels,
    *,
    tokenizer: Tokenizer,
    output: str | Path,
    settings: PooledSettings,
    test: tuple[pa.Array, Labels] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> TrainedHeads:
    """Train one model with a head for each column of labels; write it to `output`, and its card to `<output>.json`.

    Equal texts, settings and seed give equal files on one kind of machine.

    Args:
        texts: string [n].
        labels: the labels of each head.
        tokenizer: the vocabulary; a recipe with the model needs the same.
        output: path of the model, usually ending in `.safetensors`; its folder is created.
        settings: parameters of the model and of its training.
        test: texts and labels for the scores in the card; heads of list<string> are not among them.
        report: called with a human-readable line for each event.

    Raises:
        UsageError: a head has fewer than two labels, or no text has a token.
        AnnotatorError: `output` cannot be written.
    """
    path = model_path(output)
    from colophon.trainer.classifiers.fitting import fit

    heads = heads_of(labels, hidden=settings.hidden)
    units, num_units = token_units(tokenizer, fold_case=settings.fold_case)
    info = PooledInfo(
        tokenizer=TokenizerIdentity(name=tokenizer.name, sha256=tokenizer.sha256, num_ids=tokenizer.num_ids),
        dim=settings.dim,
        ngrams=settings.ngrams,
        num_units=num_units,
        bucket_bits=settings.bucket_bits,
        heads=heads,
    )
    bags = _bags(tokenizer.encode_batch(texts), info, units)
    if not len(bags.rows):
        raise UsageError("no text has a token to train on")
    seen = np.zeros(info.num_rows, bool)
    seen[bags.rows[bags.rows >= 0]] = True
    targets = [targets_of(head, labels[head.name]) for head in heads]
    arrays = fit(bags, targets, settings, report=report)
    rows, scale = quantized(arrays.pop("rows"))
    small = {"rows": rows, "scale": scale, "units": units, "seen": np.packbits(seen, bitorder="little")}
    write_model(path, info, arrays | small)
    model = PooledModel(path)
    reports = {}
    if test is not None:
        reports = evaluate_heads(heads, lambda part: model.probabilities(tokenizer.encode_batch(part)), *test)
    card = write_card(path, info, settings, labels, reports, sizes={"rows": info.num_rows})
    return TrainedHeads(path=path, card=card, reports=reports)


def quantized(rows: NumPyArray) -> tuple[NumPyArray, NumPyArray]:
    """Rows float32 [n, dim] as int8 [n, dim] of -127 to 127, and the value of 1 in each column, float32 [dim]."""
    largest = np.abs(rows).max(axis=0)
    scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
    return np.rint(rows / scale).astype(np.int8), scale


def _bags(input_ids: pa.Array, info: PooledInfo, units: NumPyArray) -> Bags:
    from colophon.annotators.pooled.compiled import list_rows
    from colophon.trainer.classifiers.bags import Bags

    ids, offsets = ids_and_offsets(input_ids)
    rows, firsts = np.empty(len(ids) * info.ngrams, np.int32), np.zeros(len(offsets), np.int64)
    list_rows(ids, offsets, features_of(info, {"units": units, "seen": np.empty(0, np.uint8)}), rows, firsts)
    return Bags(rows=rows[: firsts[-1] * info.ngrams].reshape(-1, info.ngrams), firsts=firsts, num_rows=info.num_rows)
