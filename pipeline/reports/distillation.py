"""The agreement of taught classifiers with their teacher, as text."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from colophon.pipeline.classifiers.agreement import Interval
from colophon.pipeline.classifiers.distillation import Agreement, Distilled, Wrong

_MAX_CONFUSION_LABELS = 30
_CELL = 9


def format_agreements(distilled: Distilled) -> str:
    """A table of the metrics of each kind; then the confusion, calibration and most wrong texts of the first."""
    first = distilled.agreements[0]
    lines = [f"held out: {first.texts:,} texts of {first.domains:,} domains"]
    if first.unscored:
        lines.append(f"{first.unscored:,} more have no feature that the classifier knows")
    names = list(first.metrics)
    lines += ["", f"{'':10}" + "".join(f"{name:>24}" for name in names) + f"{'calibration error':>20}"]
    for agreement in distilled.agreements:
        cells = "".join(f"{_shown(agreement.metrics[name]):>24}" for name in names)
        lines.append(f"{agreement.kind:10}{cells}{agreement.calibration_error:>20.3f}")
    return "\n".join([*lines, *_confusion(first), *_calibration(first), *_most_wrong(first)])


def recipe_lines(distilled: Distilled, *, name: str) -> str:
    """The annotator's table of a recipe, as TOML."""
    numbers = distilled.card["distilled"]["numbers"]
    pairs = ", ".join(f"{json.dumps(label)} = {number}" for label, number in (numbers or {}).items())
    score = f"{{ expected = {{ {pairs} }} }}" if numbers else "{ argmax = true }"
    keys = {**distilled.annotator, "model": str(distilled.path)}
    lines = [f"[annotators.{json.dumps(name)}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    if distilled.agreements[0].kind != "fasttext":
        return "\n".join([*lines, f"heads = {{ {json.dumps(name)} = {{ score = {score} }} }}"])
    return "\n".join([*lines, f"score = {score}"])


def _shown(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _confusion(agreement: Agreement) -> Iterator[str]:
    if agreement.confusion is None or len(agreement.labels) > _MAX_CONFUSION_LABELS:
        return
    width = max(len("teacher, classifier"), *(len(label) for label in agreement.labels))
    heads = [label if len(label) < _CELL else label[: _CELL - 2] + "…" for label in agreement.labels]
    yield from ("", f"{'teacher, classifier':{width}}" + "".join(f"{head:>{_CELL}}" for head in heads))
    for label, row in zip(agreement.labels, agreement.confusion, strict=True):
        yield f"{label:{width}}" + "".join(f"{count:>{_CELL},}" for count in row)


def _calibration(agreement: Agreement) -> Iterator[str]:
    yield from ("", f"{'probability':>14}{'texts':>9}{'mean':>8}{'right':>8}")
    for number, each in enumerate(agreement.calibration):
        if each is not None:
            tenth = f"{number / 10:.1f} to {(number + 1) / 10:.1f}"
            yield f"{tenth:>14}{each.texts:>9,}{each.mean_probability:>8.3f}{each.accuracy:>8.3f}"


def _most_wrong(agreement: Agreement) -> Iterator[str]:
    if agreement.most_wrong:
        yield from ("", "most wrong:")
    for wrong in agreement.most_wrong:
        yield f"  {_value(wrong)} → {wrong.predicted} ({wrong.probability:.3f})  {wrong.id}  {wrong.group}"
        yield f"    {textwrap.shorten(wrong.text, 110, placeholder=' …')}"


def _value(wrong: Wrong) -> str:
    if isinstance(wrong.teacher, float):
        return f"{wrong.teacher:.4g}"
    return ", ".join(wrong.teacher) if isinstance(wrong.teacher, list) else str(wrong.teacher)
