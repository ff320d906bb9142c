"""Training of a `pooled` classifier on texts: ids, rows, weights, the model's file and its card."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.fasttext.model_card import card_path
from colophon.annotators.fasttext.report import ClassifierReport, compare_labels
from colophon.annotators.fasttext.score_rules import ScoreRule
from colophon.annotators.pooled.model import PooledModel, features_of, ids_and_offsets
from colophon.annotators.pooled.model_file import HeadInfo, PooledInfo, TokenizerIdentity, write_model
from colophon.pipeline.classifiers.token_units import token_units
from colophon.pipeline.errors import UsageError
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.durable import replace_text
from colophon.shards.common.errors import listed
from colophon.shards.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:  # torch is loaded by what trains
    from colophon.trainer.classifiers.bags import Bags
    from colophon.trainer.classifiers.fitting import Targets
    from colophon.trainer.classifiers.settings import PooledSettings

_LARGEST = 127
_BATCH_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class TrainedPooled:
    """The model file of a training, its card, and its scores."""

    path: Path
    card: dict[str, Any]
    """As written to `<path>.json`."""
    reports: dict[str, ClassifierReport]
    """Scores on the test texts, by head; empty without test texts."""


def train_pooled(
    texts: pa.Array,
    labels: Mapping[str, pa.Array],
    *,
    tokenizer: Tokenizer,
    output: str | Path,
    settings: PooledSettings,
    test: tuple[pa.Array, Mapping[str, pa.Array]] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> TrainedPooled:
    """Train one model with a head for each column of labels; write it to `output`, and its card to `<output>.json`.

    Equal texts, settings and seed give equal files on one kind of machine.

    Args:
        texts: string [n].
        labels: by head: string [n], one label a text; or list<string> [n], any number of labels a text. A null trains
            the other heads alone.
        tokenizer: the vocabulary; a recipe with the model needs the same.
        output: path of the model, usually ending in `.safetensors`; its folder is created.
        settings: parameters of the model and of its training.
        test: texts and labels for the scores in the card; heads of list<string> are not among them.
        report: called with a human-readable line for each event.

    Raises:
        UsageError: a head has fewer than two labels, or no text has a token.
        AnnotatorError: `output` cannot be written.
    """
    path = Path(output)
    if path.is_dir():
        raise UsageError(f"{path}: this is a folder; a model is a file")
    from colophon.trainer.classifiers.fitting import fit

    heads = [_head(name, column, hidden=settings.hidden) for name, column in labels.items()]
    units, num_units = token_units(tokenizer, fold_case=settings.fold_case)
    info = PooledInfo(
        tokenizer=TokenizerIdentity(name=tokenizer.name, sha256=tokenizer.sha256, num_ids=tokenizer.num_ids),
        dim=settings.dim,
        ngrams=settings.ngrams,
        num_units=num_units,
        bucket_bits=settings.bucket_bits,
        heads=tuple(heads),
    )
    bags = _bags(tokenizer.encode_batch(texts), info, units)
    if not len(bags.rows):
        raise UsageError("no text has a token to train on")
    seen = np.zeros(info.num_rows, bool)
    seen[bags.rows[bags.rows >= 0]] = True
    targets = [_targets(head, labels[head.name]) for head in heads]
    arrays = fit(bags, targets, settings, report=report)
    rows, scale = quantized(arrays.pop("rows"))
    small = {"rows": rows, "scale": scale, "units": units, "seen": np.packbits(seen, bitorder="little")}
    write_model(path, info, arrays | small)
    reports = {} if test is None else evaluate_pooled(PooledModel(path), *test, tokenizer=tokenizer)
    card = _card(path, info, settings, labels, reports)
    replace_text(card_path(path), json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return TrainedPooled(path=path, card=card, reports=reports)


def evaluate_pooled(
    model: PooledModel, texts: pa.Array, labels: Mapping[str, pa.Array], *, tokenizer: Tokenizer
) -> dict[str, ClassifierReport]:
    """By head with one label a text: the most probable label of each text compared with its label.

    Raises:
        AnnotatorError: no row has a text with a token and a label.
    """
    rules = {h.name: _argmax(h) for h in model.info.heads if pa.types.is_string(labels[h.name].type)}
    predicted: dict[str, list[str | None]] = {name: [] for name in rules}
    for start in range(0, len(texts), _BATCH_ROWS):
        found = model.probabilities(tokenizer.encode_batch(texts.slice(start, _BATCH_ROWS)))
        for head, rows in zip(model.info.heads, found, strict=True):
            if head.name in rules:
                predicted[head.name] += rules[head.name].labels(rows).to_pylist()
    known = {head.name: head.labels for head in model.info.heads}
    return {name: compare_labels(labels[name].to_pylist(), each, known=known[name]) for name, each in predicted.items()}


def quantized(rows: NumPyArray) -> tuple[NumPyArray, NumPyArray]:
    """Rows float32 [n, dim] as int8 [n, dim] of -127 to 127, and the value of 1 in each column, float32 [dim]."""
    largest = np.abs(rows).max(axis=0)
    scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
    return np.rint(rows / scale).astype(np.int8), scale


def _argmax(head: HeadInfo) -> Any:
    return ScoreRule(argmax=True).for_labels(head.labels, where=head.name, loss=head.loss)


def _head(name: str, column: pa.Array, *, hidden: int) -> HeadInfo:
    is_list = not pa.types.is_string(column.type)
    values = (column.flatten() if is_list else column).drop_null().unique().to_pylist()
    if len(values) < 2 or "" in values:
        problem = "a label is empty" if "" in values else "a classifier needs at least two labels"
        raise UsageError(f"{name}: {problem}; labels: {listed(sorted(map(repr, values)), most=12) or 'none'}")
    return HeadInfo(name=name, labels=tuple(sorted(values)), loss="ova" if is_list else "softmax", hidden=hidden)


def _bags(input_ids: pa.Array, info: PooledInfo, units: NumPyArray) -> Bags:
    from colophon.annotators.pooled.compiled import list_rows
    from colophon.trainer.classifiers.bags import Bags

    ids, offsets = ids_and_offsets(input_ids)
    rows, firsts = np.empty(len(ids) * info.ngrams, np.int32), np.zeros(len(offsets), np.int64)
    list_rows(ids, offsets, features_of(info, {"units": units, "seen": np.empty(0, np.uint8)}), rows, firsts)
    return Bags(rows=rows[: firsts[-1] * info.ngrams].reshape(-1, info.ngrams), firsts=firsts, num_rows=info.num_rows)


def _targets(head: HeadInfo, column: pa.Array) -> Targets:
    from colophon.trainer.classifiers.fitting import Targets

    names, is_known = pa.array(head.labels), column.is_valid().to_numpy(zero_copy_only=False)
    if head.loss == "softmax":
        labels = pc.fill_null(pc.index_in(column, names), -1).to_numpy().astype(np.int64)
    else:
        labels = np.zeros((len(column), len(names)), bool)
        rows = pc.list_parent_indices(column).to_numpy()
        labels[rows, pc.index_in(column.flatten(), names).to_numpy()] = True
    return Targets(num_labels=len(names), labels=labels, is_known=is_known)


def _card(
    path: Path,
    info: PooledInfo,
    settings: PooledSettings,
    labels: Mapping[str, pa.Array],
    reports: Mapping[str, ClassifierReport],
) -> dict[str, Any]:
    return {
        **info.model_dump(mode="json"),
        "sizes": {"bytes": path.stat().st_size, "rows": info.num_rows},
        "training": {
            "settings": settings.model_dump(mode="json"),
            "texts": {name: len(column) - column.null_count for name, column in labels.items()},
            "texts_by_label": {name: _counts(column) for name, column in labels.items()},
        },
        "test": {name: report.as_dict() for name, report in reports.items()} or None,
        "sha256": file_sha256(path),
    }


def _counts(column: pa.Array) -> dict[str, int]:
    values = column if pa.types.is_string(column.type) else column.flatten()
    return dict(sorted((row["values"], row["counts"]) for row in values.drop_null().value_counts().to_pylist()))


def check_heads(labels: Sequence[str]) -> None:
    """Check that heads can be named after these columns.

    Raises:
        UsageError: a column is named twice.
    """
    twice = [label for number, label in enumerate(labels) if label in labels[:number]]
    if twice:
        raise UsageError(f"--label: {twice[0]!r} is given twice")
