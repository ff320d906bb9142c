"""The parts that trainings of heads share: labels as targets, scores on test texts, the model card."""

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
from colophon.annotators.fasttext.score_rules import ScoreFunction, ScoreRule
from colophon.annotators.heads.head import HeadInfo
from colophon.annotators.heads.tensor_file import ModelInfo
from colophon.pipeline.errors import UsageError
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.durable import replace_text
from colophon.shards.common.errors import listed

if TYPE_CHECKING:  # torch is loaded by what trains
    from colophon.trainer.classifiers.fitting import Targets
    from colophon.trainer.classifiers.settings import HeadSettings

BATCH_ROWS = 1024
"""Texts that are scored at once."""

Labels = Mapping[str, pa.Array]
"""By head: string [n], one label a text; or list<string> [n], any number of labels a text. A null trains the other
heads alone."""


@dataclass(frozen=True, kw_only=True)
class TrainedHeads:
    """The model file of a training, its card, and its scores."""

    path: Path
    card: dict[str, Any]
    """As written to `<path>.json`."""
    reports: dict[str, ClassifierReport]
    """Scores on the test texts, by head; empty without test texts."""


def model_path(output: str | Path) -> Path:
    """`output` as the path of a model.

    Raises:
        UsageError: it is a folder.
    """
    path = Path(output)
    if path.is_dir():
        raise UsageError(f"{path}: this is a folder; a model is a file")
    return path


def check_heads(labels: Sequence[str]) -> None:
    """Check that heads can be named after these columns.

    Raises:
        UsageError: a column is named twice.
    """
    twice = [label for number, label in enumerate(labels) if label in labels[:number]]
    if twice:
        raise UsageError(f"--label: {twice[0]!r} is given twice")


def heads_of(labels: Labels, *, hidden: int) -> tuple[HeadInfo, ...]:
    """A head for each column, with its labels sorted.

    Raises:
        UsageError: a column has fewer than two labels, or an empty one.
    """
    return tuple(_head(name, column, hidden=hidden) for name, column in labels.items())


def _head(name: str, column: pa.Array, *, hidden: int) -> HeadInfo:
    is_list = not pa.types.is_string(column.type)
    values = (column.flatten() if is_list else column).drop_null().unique().to_pylist()
    if len(values) < 2 or "" in values:
        problem = "a label is empty" if "" in values else "a classifier needs at least two labels"
        raise UsageError(f"{name}: {problem}; labels: {listed(sorted(map(repr, values)), most=12) or 'none'}")
    return HeadInfo(name=name, labels=tuple(sorted(values)), loss="ova" if is_list else "softmax", hidden=hidden)


def targets_of(head: HeadInfo, column: pa.Array) -> Targets:
    """The numbers of the labels of each text."""
    from colophon.trainer.classifiers.fitting import Targets

    names, is_known = pa.array(head.labels), column.is_valid().to_numpy(zero_copy_only=False)
    if head.loss == "softmax":
        labels = pc.fill_null(pc.index_in(column, names), -1).to_numpy().astype(np.int64)
    else:
        labels = np.zeros((len(column), len(names)), bool)
        rows = pc.list_parent_indices(column).to_numpy()
        labels[rows, pc.index_in(column.flatten(), names).to_numpy()] = True
    return Targets(num_labels=len(names), labels=labels, is_known=is_known)


def evaluate_heads(
    heads: Sequence[HeadInfo],
    probabilities: Callable[[pa.Array], Sequence[NumPyArray]],
    texts: pa.Array,
    labels: Labels,
) -> dict[str, ClassifierReport]:
    """By head with one label a text: the most probable label of each text compared with its label.

    Args:
        heads: the heads of the model.
        probabilities: of each head, float32 [texts, labels], for up to `BATCH_ROWS` texts.
        texts: string [n].
        labels: by head.

    Raises:
        AnnotatorError: no row has a text with a feature and a label.
    """
    rules = {head.name: _argmax(head) for head in heads if pa.types.is_string(labels[head.name].type)}
    predicted: dict[str, list[str | None]] = {name: [] for name in rules}
    for start in range(0, len(texts), BATCH_ROWS):
        for head, rows in zip(heads, probabilities(texts.slice(start, BATCH_ROWS)), strict=True):
            if head.name in rules:
                predicted[head.name] += rules[head.name].labels(rows).to_pylist()
    known = {head.name: head.labels for head in heads}
    return {name: compare_labels(labels[name].to_pylist(), each, known=known[name]) for name, each in predicted.items()}


def _argmax(head: HeadInfo) -> ScoreFunction:
    return ScoreRule(argmax=True).for_labels(head.labels, where=head.name, loss=head.loss)


def write_card(
    path: Path,
    info: ModelInfo,
    settings: HeadSettings,
    labels: Labels,
    reports: Mapping[str, ClassifierReport],
    *,
    sizes: Mapping[str, int],
) -> dict[str, Any]:
    """Write the card of a model beside it, and return it; `sizes` are those besides the file's."""
    card = {
        **info.model_dump(mode="json"),
        "sizes": {"bytes": path.stat().st_size, **sizes},
        "training": {
            "settings": settings.model_dump(mode="json"),
            "texts": {name: len(column) - column.null_count for name, column in labels.items()},
            "texts_by_label": {name: _counts(column) for name, column in labels.items()},
        },
        "test": {name: report.as_dict() for name, report in reports.items()} or None,
        "sha256": file_sha256(path),
    }
    replace_text(card_path(path), json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return card


def _counts(column: pa.Array) -> dict[str, int]:
    values = column if pa.types.is_string(column.type) else column.flatten()
    return dict(sorted((row["values"], row["counts"]) for row in values.drop_null().value_counts().to_pylist()))
