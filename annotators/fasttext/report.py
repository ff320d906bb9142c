"""The scores of a classifier on labelled texts: precision, recall and F1 of each label, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.score_rules import ScoreRule
from colophon.annotators.fasttext.text_preparation import TextPreparation

_COLUMN_WIDTH = 9
_MAX_CONFUSION_LABELS = 30
_MAX_LABELS = 5000
"""The confusion matrix of as many labels takes 200 MB."""


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """The scores of one label. A ratio whose denominator is zero is 0.0."""

    label: str
    precision: float
    """The share of the texts predicted to have this label that have it."""
    recall: float
    """The share of the texts with this label that were predicted to have it."""
    f1: float
    support: int
    """Texts with this label."""


@dataclass(frozen=True, kw_only=True)
class ClassifierReport:
    """The scores of a classifier on labelled texts."""

    num_texts: int
    num_left_out: int
    """Rows without a text, a word in it, or a label. No other number includes them."""
    accuracy: float
    macro_f1: float
    """Mean of the labels' F1, over the labels that occur in the texts."""
    labels: tuple[LabelReport, ...]
    """The labels of the model and of the texts, sorted by name."""
    confusion: tuple[tuple[int, ...], ...]
    """confusion[i][j]: texts with label i that were predicted to have label j, in the order of `labels`."""

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)


def evaluate_classifier(
    model: FastTextModel | str | Path,
    texts: pa.Array | Sequence[str | None],
    labels: pa.Array | Sequence[str | None],
    *,
    normalize: TextPreparation,
) -> ClassifierReport:
    """Compare the most probable label of each of `texts` with its label.

    A label that the model lacks is never predicted: each of its texts counts as an error.

    Raises:
        AnnotatorError: no usable model, more than 5,000 labels, columns of unequal length, or no row with a text and a
            label.
    """
    model = model if isinstance(model, FastTextModel) else FastTextModel(model)
    texts = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(texts, pa.large_string())
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    if len(texts) != len(labels):
        raise AnnotatorError(f"{len(texts)} texts have {len(labels)} labels")
    true = labels.to_pylist() if isinstance(labels, pa.Array | pa.ChunkedArray) else labels
    return compare_labels(true, _predicted_labels(model, texts, normalize), known=model.label_names)


def compare_labels(
    true: Sequence[str | None], predicted: Sequence[str | None], *, known: Sequence[str]
) -> ClassifierReport:
    """Compare a classifier's label of each text with its label; `known` are the classifier's labels.

    Raises:
        AnnotatorError: more than 5,000 labels, or no row with both.
    """
    series = [pl.Series("true", true, pl.String), pl.Series("predicted", predicted, pl.String)]
    pairs = pl.DataFrame(series).drop_nulls()
    if pairs.is_empty():
        raise AnnotatorError("no row has both a text and a label to evaluate on")
    return _report(pairs, known, num_left_out=len(true) - len(pairs))


def format_report(report: ClassifierReport) -> str:
    """Aligned text: one line a label, the means, and the confusion matrix (for at most 30 labels)."""
    width = max(len("true, predicted"), *(len(label.label) for label in report.labels))
    lines = [f"{'label':{width}}" + "".join(f"{head:>11}" for head in ("precision", "recall", "F1", "texts"))]
    for row in report.labels:
        lines.append(f"{row.label:{width}}{row.precision:11.3f}{row.recall:11.3f}{row.f1:11.3f}{row.support:11,}")
    lines.append(f"{'macro mean':{width}}{'':22}{report.macro_f1:11.3f}{report.num_texts:11,}")
    lines.append(f"{'accuracy':{width}}{'':22}{report.accuracy:11.3f}")
    if report.num_left_out:
        lines.append(f"excluded {report.num_left_out:,} rows without a text or a label")
    if len(report.labels) <= _MAX_CONFUSION_LABELS:
        lines += ["", *_confusion_lines(report, width)]
    return "\n".join(lines)


def _confusion_lines(report: ClassifierReport, width: int) -> list[str]:
    names = [label.label for label in report.labels]
    cell = max(_COLUMN_WIDTH, *(len(name) + 2 for name in names)) if len(names) <= 6 else _COLUMN_WIDTH
    headings = [name if len(name) < cell else name[: cell - 2] + "…" for name in names]
    lines = [f"{'true, predicted':{width}}" + "".join(f"{name:>{cell}}" for name in headings)]
    for name, row in zip(names, report.confusion, strict=True):
        lines.append(f"{name:{width}}" + "".join(f"{count:>{cell},}" for count in row))
    return lines


def _predicted_labels(model: FastTextModel, texts: pa.Array, normalize: TextPreparation) -> list[str | None]:
    argmax = ScoreRule(argmax=True).for_labels(model.header.labels, where="model", loss=model.header.loss)
    predicted: list[str | None] = []
    most = model.header.rows_at_once
    for start in range(0, len(texts), most):
        rows = model.probabilities(texts.slice(start, most), preparation=normalize)
        predicted += argmax.labels(rows).to_pylist()
    return predicted


def _report(pairs: pl.DataFrame, known: Sequence[str], *, num_left_out: int) -> ClassifierReport:
    names = sorted({*known, *pairs["true"], *pairs["predicted"]})
    if len(names) > _MAX_LABELS:
        raise AnnotatorError(f"model and rows have {len(names):,} labels; a report compares at most {_MAX_LABELS:,}")
    counts = {
        (true, predicted): count for true, predicted, count in pairs.group_by("true", "predicted").len().iter_rows()
    }
    confusion = tuple(tuple(counts.get((true, predicted), 0) for predicted in names) for true in names)
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
    num_predicted = sum(row[place] for row in confusion)
    return LabelReport(
        label=name,
        precision=_ratio(right, num_predicted),
        recall=_ratio(right, support),
        f1=_ratio(2 * right, support + num_predicted),
        support=support,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
