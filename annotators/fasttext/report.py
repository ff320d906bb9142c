"""How good a classifier is on labelled texts: precision, recall and F1 of each label, and what it confuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.score_rules import ScoreRule
from colophon.annotators.fasttext.text_preparation import TextPreparation

if TYPE_CHECKING:  # every command that reads a recipe imports this file; 0.15 s of polars are for those that train
    import polars as pl

_SLICE_ROWS = 1024
_COLUMN_WIDTH = 9
_MAX_CONFUSION_LABELS = 30


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """One label. A ratio whose denominator is zero is 0.0."""

    label: str
    precision: float
    """Of the texts given this label, the part that has it."""
    recall: float
    """Of the texts with this label, the part that was given it."""
    f1: float
    support: int
    """Texts with this label."""


@dataclass(frozen=True, kw_only=True)
class ClassifierReport:
    """The scores of a classifier on labelled texts."""

    num_texts: int
    num_left_out: int
    """Rows without a text, a word in it, or a label: they are in no other number."""
    accuracy: float
    macro_f1: float
    """Mean of the labels' F1, over the labels that occur in the texts."""
    labels: tuple[LabelReport, ...]
    """By name: the labels of the model and of the texts."""
    confusion: tuple[tuple[int, ...], ...]
    """confusion[i][j]: texts with label i that were given label j, in the order of `labels`."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def evaluate_classifier(
    model: FastTextModel | str | Path,
    texts: pa.Array | Sequence[str | None],
    labels: pa.Array | Sequence[str | None],
    *,
    normalize: TextPreparation,
) -> ClassifierReport:
    """Compare the most probable label of each of `texts` with its label.

    A label that the model does not know is never given: it counts as an error.

    Raises:
        AnnotatorError: no usable model, columns of unequal length, or not one row with a text and a label.
    """
    import polars as pl

    model = model if isinstance(model, FastTextModel) else FastTextModel(model)
    texts = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(texts, pa.large_string())
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    if len(texts) != len(labels):
        raise AnnotatorError(f"{len(texts)} texts have {len(labels)} labels")
    given = pl.Series("given", _most_probable(model, texts, normalize), pl.String)
    true = pl.Series(
        "true", labels.to_pylist() if isinstance(labels, pa.Array | pa.ChunkedArray) else labels, pl.String
    )
    pairs = pl.DataFrame([true, given]).drop_nulls()
    if pairs.is_empty():
        raise AnnotatorError("there is not one row with a text and a label to evaluate on")
    return _report(pairs, model.label_names, num_left_out=len(texts) - len(pairs))


def format_report(report: ClassifierReport) -> str:
    """Aligned text: a line a label, the means, and the confusion matrix (for at most 30 labels)."""
    width = max(len("true, given"), *(len(label.label) for label in report.labels))
    lines = [f"{'label':{width}}" + "".join(f"{head:>11}" for head in ("precision", "recall", "F1", "texts"))]
    for x in report.labels:
        lines.append(f"{x.label:{width}}{x.precision:11.3f}{x.recall:11.3f}{x.f1:11.3f}{x.support:11,}")
    lines.append(f"{'macro mean':{width}}{'':22}{report.macro_f1:11.3f}{report.num_texts:11,}")
    lines.append(f"{'accuracy':{width}}{'':22}{report.accuracy:11.3f}")
    if report.num_left_out:
        lines.append(f"{report.num_left_out:,} rows without a text or a label left out")
    if len(report.labels) <= _MAX_CONFUSION_LABELS:
        lines += ["", *_confusion_lines(report, width)]
    return "\n".join(lines)


def _confusion_lines(report: ClassifierReport, width: int) -> list[str]:
    names = [label.label for label in report.labels]
    cell = max(_COLUMN_WIDTH, *(len(name) + 2 for name in names)) if len(names) <= 6 else _COLUMN_WIDTH
    short = [name if len(name) < cell else name[: cell - 2] + "…" for name in names]
    lines = [f"{'true, given':{width}}" + "".join(f"{name:>{cell}}" for name in short)]
    for name, row in zip(names, report.confusion, strict=True):
        lines.append(f"{name:{width}}" + "".join(f"{count:>{cell},}" for count in row))
    return lines


def _most_probable(model: FastTextModel, texts: pa.Array, normalize: TextPreparation) -> list[str | None]:
    scorer = ScoreRule(argmax=True).for_labels(model.header.labels, where="model", loss=model.header.loss)
    given: list[str | None] = []
    for start in range(0, len(texts), _SLICE_ROWS):
        rows = model.probabilities(texts.slice(start, _SLICE_ROWS), preparation=normalize)
        given += scorer.labels(rows).to_pylist()
    return given


def _report(pairs: pl.DataFrame, known: Sequence[str], *, num_left_out: int) -> ClassifierReport:
    names = sorted({*known, *pairs["true"], *pairs["given"]})
    counts = {(true, given): count for true, given, count in pairs.group_by("true", "given").len().iter_rows()}
    confusion = tuple(tuple(counts.get((true, given), 0) for given in names) for true in names)
    labels = tuple(_label_report(name, confusion, place) for place, name in enumerate(names))
    scored = [label.f1 for label in labels if label.support]
    return ClassifierReport(
        num_texts=len(pairs),
        num_left_out=num_left_out,
        accuracy=sum(row[i] for i, row in enumerate(confusion)) / len(pairs),
        macro_f1=sum(scored) / len(scored),
        labels=labels,
        confusion=confusion,
    )


def _label_report(name: str, confusion: tuple[tuple[int, ...], ...], place: int) -> LabelReport:
    right, support = confusion[place][place], sum(confusion[place])
    num_given = sum(row[place] for row in confusion)
    return LabelReport(
        label=name,
        precision=_ratio(right, num_given),
        recall=_ratio(right, support),
        f1=_ratio(2 * right, support + num_given),
        support=support,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
