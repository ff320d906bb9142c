"""Teaching a fast classifier the judgements of a slow one: train on judged texts, compare on held-out domains."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from colophon.annotators.fasttext.model_card import card_path
from colophon.pipeline.classifiers.agreement import (
    CalibrationBin,
    Interval,
    calibration,
    calibration_error,
    with_intervals,
)
from colophon.pipeline.classifiers.comparison import Compared, compared_labels, compared_tags, minus
from colophon.pipeline.classifiers.students import StudentKind
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
    differences: dict[str, Interval]
    """By metric, the number of the first kind less that of this one, on the texts that both predict and in the same
    samples of domains; empty for the first kind."""
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
    predictions: list[_Predicted] = []
    card: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="colophon-") as scratch:
        for number, kind in enumerate(kinds):
            path = Path(scratch, f"other{kind.suffix}") if number else output
            log = partial(_report_of, kind.name, report)
            rows = teaching.texts if kind.column is None else teaching.vectors
            assert rows is not None, "of a kind with a column, `Columns.vector` has its name"
            student = kind.teach(rows.filter(known), labels, head=teacher, output=path, report=log)
            predictions.append(_Predicted(student.predict(rows.filter(unseen)), student.labels, teaching, unseen))
            agreements.append(_agreement(predictions, kind.name, seed=seed))
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


@dataclass(frozen=True)
class _Predicted:
    """The probabilities of a classifier for the held-out texts."""

    rows: NumPyArray
    """float32 [held-out texts, labels]"""
    labels: tuple[str, ...]
    teaching: Teaching
    unseen: pa.Array

    @property
    def scored(self) -> NumPyArray:
        """bool [held-out texts]: whether the classifier knows a feature of the text."""
        return np.asarray(~np.isnan(self.rows).any(axis=1))

    def column(self, name: str, kept: NumPyArray) -> pa.Array:
        """A column of the teaching, of those held-out texts that are kept."""
        return getattr(self.teaching, name).filter(self.unseen).filter(pa.array(kept))

    def domains(self, kept: NumPyArray) -> NumPyArray:
        """int64 [kept texts]: the number of each text's domain."""
        numbers: NumPyArray = self.column("groups", kept).dictionary_encode().indices.to_numpy()
        return numbers

    def compared(self, kept: NumPyArray) -> Compared:
        """The comparison with the teacher on the texts that are kept, all of them scored."""
        compare = compared_tags if self.teaching.kind == "tags" else compared_labels
        labels, values = self.column("labels", kept), self.column("values", kept)
        return compare(self.rows[kept].astype(np.float64), labels, values, self.labels, self.teaching.numbers)


def _differences(first: _Predicted, other: _Predicted, *, seed: int) -> dict[str, Interval]:
    both = first.scored & other.scored
    if not both.any():
        return {}
    theirs = other.compared(both)[0]
    metrics = {name: minus(metric, theirs[name]) for name, metric in first.compared(both)[0].items()}
    return with_intervals(metrics, first.domains(both), seed=seed)


def _agreement(predictions: Sequence[_Predicted], kind: str, *, seed: int) -> Agreement:
    """The agreement of the last predictions, and its differences from the first ones."""
    predicted = predictions[-1]
    scored = predicted.scored
    if not scored.any():
        raise UsageError("no held-out text has a feature that the classifier knows")
    texts, ids, groups, values = (predicted.column(name, scored) for name in ("texts", "ids", "groups", "values"))
    rows = predicted.rows[scored].astype(np.float64)
    metrics, table, best, right = predicted.compared(scored)
    numbers = predicted.domains(scored)
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
        differences=_differences(predictions[0], predicted, seed=seed) if len(predictions) > 1 else {},
        labels=predicted.labels,
        confusion=table,
        calibration=tuple(bins),
        calibration_error=calibration_error(bins),
        most_wrong=tuple(
            Wrong(
                id=ids[int(i)].as_py(),
                group=groups[int(i)].as_py(),
                teacher=values[int(i)].as_py(),
                predicted=predicted.labels[best[i]],
                probability=round(float(certain[i]), 4),
                text=" ".join(texts[int(i)].as_py()[:_EXCERPT].split()),
            )
            for i in order
        ),
    )
