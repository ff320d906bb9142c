"""Teaching a fast classifier the judgements of a slow one: train on judged texts, compare on held-out domains."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.fasttext.model_card import card_path
from colophon.pipeline.classifiers.agreement import (
    CalibrationBin,
    Interval,
    Ranks,
    accuracy,
    auc,
    calibration,
    calibration_error,
    confusion,
    macro_f1,
    spearman,
    with_intervals,
)
from colophon.pipeline.classifiers.students import Student, StudentKind
from colophon.pipeline.classifiers.teaching import Teaching
from colophon.pipeline.errors import UsageError
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.durable import replace_text

_MOST_WRONG = 10
_EXCERPT = 160


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A text on which classifier and teacher disagree most."""

    id: str
    group: str
    """Its registered domain, or its id."""
    teacher: Any
    """The teacher's value."""
    predicted: str
    probability: float
    """The classifier's probability of what it predicted."""
    text: str
    """The beginning of the text."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well a classifier agrees with its teacher on the held-out texts."""

    kind: str
    texts: int
    """Held-out texts with a prediction; no number includes the others."""
    unscored: int
    """Held-out texts without a feature that the classifier knows."""
    untaught: int
    """Those of `texts` whose label no text taught: they count as wrong, and have no row in `confusion`."""
    domains: int
    metrics: dict[str, Interval]
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    """confusion[i][j]: texts that the teacher gave label i and the classifier label j; None for tags."""
    calibration: tuple[CalibrationBin | None, ...]
    calibration_error: float
    most_wrong: tuple[Wrong, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON; a number that is undefined is null."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)), parse_constant=lambda constant: None)
        return found


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """A taught classifier and its agreement; with a comparison also those of the other kinds."""

    path: Path
    card: dict[str, Any]
    agreements: tuple[Agreement, ...]
    """The first is that of the model at `path`."""
    texts: int
    """Texts that it was taught with."""
    annotator: Mapping[str, Any]
    """The keys of the annotator that uses the model, but for `model` and its score."""


def distill(
    teaching: Teaching,
    kinds: Sequence[StudentKind],
    *,
    output: Path,
    teacher: str,
    share: float,
    seed: int,
    report: Callable[[str], None],
) -> Distilled:
    """Teach the first of `kinds` and write its model to `output`, its card beside it; teach the others to compare.

    Args:
        teaching: judged texts.
        kinds: the classifiers to teach, all on the same texts.
        output: path of the model.
        teacher: the name of the teacher's column, for the card and the head.
        share: the share of domains whose texts are held out.
        seed: of the split and of the intervals.
        report: called with a human-readable line for each event.

    Raises:
        UsageError: nothing is held out, or nothing left to teach.
    """
    held_out = teaching.held_out(share=share, seed=seed)
    known, unseen = (pa.array(which) for which in (~held_out, held_out))
    labels = teaching.labels.filter(known)
    report(f"teaching with {len(labels):,} texts; {len(teaching) - len(labels):,} are held out")
    agreements: list[Agreement] = []
    card: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="colophon-") as scratch:
        for number, kind in enumerate(kinds):
            path = Path(scratch, f"other{kind.suffix}") if number else output
            log = partial(_report_of, kind.name, report)
            rows = teaching.texts if kind.column is None else teaching.vectors
            assert rows is not None, "of a kind with a column, `Columns.vector` has its name"
            student = kind.teach(rows.filter(known), labels, head=teacher, output=path, report=log)
            probabilities = student.predict(rows.filter(unseen))
            agreements.append(_agreement(student, probabilities, kind.name, teaching, unseen, seed=seed))
            card = card or student.card
    split = {"held_out": share, "seed": seed, "texts": len(labels), "held_out_texts": len(teaching) - len(labels)}
    card["distilled"] = {
        "teacher": teacher,
        "kind": teaching.kind,
        "numbers": teaching.numbers,
        "split": split,
        "agreement": [agreement.as_dict() for agreement in agreements],
    }
    replace_text(card_path(output), json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return Distilled(
        path=output, card=card, agreements=tuple(agreements), texts=len(labels), annotator=kinds[0].annotator
    )


def _report_of(name: str, report: Callable[[str], None], line: str) -> None:
    report(f"{name}: {line}")


def _agreement(
    student: Student, probabilities: NumPyArray, kind: str, teaching: Teaching, unseen: pa.Array, *, seed: int
) -> Agreement:
    texts, ids, groups, values, labels = (
        column.filter(unseen)
        for column in (teaching.texts, teaching.ids, teaching.groups, teaching.values, teaching.labels)
    )
    scored = ~np.isnan(probabilities).any(axis=1)
    if not scored.any():
        raise UsageError("no held-out text has a feature that the classifier knows")
    kept = pa.array(scored)
    texts, ids, groups, values, labels = (c.filter(kept) for c in (texts, ids, groups, values, labels))
    rows = probabilities[scored].astype(np.float64)
    compared = _compared_tags if teaching.kind == "tags" else _compared
    metrics, table, best, right = compared(rows, labels, values, student.labels, teaching.numbers)
    numbers = groups.dictionary_encode().indices.to_numpy()
    certain = rows[np.arange(len(rows)), best]
    bins = calibration(certain, right)
    order = np.argsort(np.where(right, -1, certain), kind="stable")[::-1][: min(_MOST_WRONG, int((~right).sum()))]
    return Agreement(
        kind=kind,
        texts=len(rows),
        unscored=int((~scored).sum()),
        untaught=0 if table is None else len(rows) - sum(map(sum, table)),
        domains=int(numbers.max()) + 1,
        metrics=with_intervals(metrics, numbers, seed=seed),
        labels=student.labels,
        confusion=table,
        calibration=tuple(bins),
        calibration_error=calibration_error(bins),
        most_wrong=tuple(
            Wrong(
                id=ids[int(i)].as_py(),
                group=groups[int(i)].as_py(),
                teacher=values[int(i)].as_py(),
                predicted=student.labels[best[i]],
                probability=round(float(certain[i]), 4),
                text=" ".join(texts[int(i)].as_py()[:_EXCERPT].split()),
            )
            for i in order
        ),
    )


Metric = Callable[[NumPyArray], float]
Compared = tuple[dict[str, Metric], "tuple[tuple[int, ...], ...] | None", NumPyArray, NumPyArray]
"""Metrics by name, the confusion table, each text's best label (int64 [n]), and whether it is the teacher's."""


def _compared(
    rows: NumPyArray, labels: pa.Array, values: pa.Array, names: tuple[str, ...], numbers: dict[str, float] | None
) -> Compared:
    """One label a text; of a number also the expected value against the teacher's number."""
    # A label that was in held-out domains alone is one more, which is never predicted.
    true = pc.fill_null(pc.index_in(labels, pa.array(names)), len(names)).to_numpy().astype(np.int64)
    best, size = rows.argmax(axis=1), len(names) + 1
    right = true == best
    table = confusion(true, best, size, np.ones(len(true)))
    metrics: dict[str, Metric] = {
        "accuracy": lambda weights: accuracy(right, weights),
        "macro_f1": lambda weights: macro_f1(confusion(true, best, size, weights)),
    }
    if numbers is not None:
        expected = rows / rows.sum(axis=1, keepdims=True) @ np.array([numbers[name] for name in names])
        teacher, predicted = Ranks(values.to_numpy()), Ranks(expected)
        is_high = values.to_numpy() > np.median(values.to_numpy())
        metrics["spearman"] = lambda weights: spearman(teacher, predicted, weights)
        metrics["auc"] = lambda weights: auc(predicted, is_high, weights)
    elif len(names) == 2:
        scores = Ranks(rows[:, 1])
        metrics["auc"] = lambda weights: auc(scores, true == 1, weights)
    else:
        metrics["auc"] = _mean_auc(rows, np.eye(size, dtype=bool)[true][:, : len(names)])
    shown = tuple(tuple(int(count) for count in row[: len(names)]) for row in table[: len(names)])
    return metrics, shown, best, right


def _compared_tags(
    rows: NumPyArray, labels: pa.Array, values: pa.Array, names: tuple[str, ...], numbers: dict[str, float] | None
) -> Compared:
    """Any number of labels a text: the best one is right if it is among the teacher's."""
    true = np.zeros((len(rows), len(names) + 1), bool)
    places = pc.fill_null(pc.index_in(labels.flatten(), pa.array(names)), len(names)).to_numpy()
    true[pc.list_parent_indices(labels).to_numpy(), places] = True
    true = true[:, : len(names)]
    best, predicted = rows.argmax(axis=1), rows >= 0.5
    right = true[np.arange(len(rows)), best]

    def tag_f1(weights: NumPyArray) -> float:
        hits, given, found = ((weights[:, None] * each).sum(axis=0) for each in (true & predicted, true, predicted))
        known = given > 0
        return float((2 * hits[known] / (given + found)[known]).mean()) if known.any() else math.nan

    metrics: dict[str, Metric] = {
        "accuracy": lambda weights: accuracy(right, weights),
        "macro_f1": tag_f1,
        "auc": _mean_auc(rows, true),
    }
    return metrics, None, best, right


def _mean_auc(rows: NumPyArray, true: NumPyArray) -> Metric:
    """The mean over labels of each label's AUC against all others; labels that do not occur have none."""
    ranks = [Ranks(rows[:, place]) for place in range(rows.shape[1])]

    def metric(weights: NumPyArray) -> float:
        each = np.array([auc(rank, true[:, place], weights) for place, rank in enumerate(ranks)])
        return float(each[np.isfinite(each)].mean()) if np.isfinite(each).any() else math.nan

    return metric
