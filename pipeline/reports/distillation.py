"""The agreement of taught classifiers with their teacher: tables for people, and the annotator's table of a recipe."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping

import numpy as np
from rich.console import Console
from rich.table import Table

from colophon.pipeline.classifiers.agreement import Interval
from colophon.pipeline.classifiers.distillation import Agreement, Distilled, Wrong
from colophon.pipeline.reports.tables import print_table
from colophon.shards.common.arrays import NumPyArray

_MOST_COLUMNS = 10
"""Labels of a confusion matrix; of more, each line names those that it has."""
_NAMED = 4
_MOST_LINES = 40
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def print_agreements(distilled: Distilled, *, console: Console) -> None:
    """Print the metrics of each kind; then the confusion, calibration and most wrong texts of the first."""
    first = distilled.agreements[0]
    console.print(f"held out: {first.texts:,} texts of {first.domains:,} domains", highlight=False)
    for line in _excluded(first):
        console.print(line, highlight=False)
    for table in agreement_tables(distilled):
        console.print()
        print_table(table, console=console)
    for line in _most_wrong(first):
        console.print(line, highlight=False, soft_wrap=True)


def agreement_tables(distilled: Distilled) -> Iterator[Table]:
    """Yield the tables of a report."""
    first = distilled.agreements[0]
    yield _metrics(distilled)
    if len(distilled.agreements) > 1:
        yield _differences(distilled)
    if first.confusion is not None:
        yield _confusion(first, np.array(first.confusion), numbers=distilled.card["distilled"]["numbers"] or {})
    yield _calibration(first)


def recipe_lines(distilled: Distilled, *, name: str) -> str:
    """The annotator's table of a recipe, as TOML; the recipe may have the teacher, whose column is `name`, too."""
    numbers = distilled.card["distilled"]["numbers"]
    pairs = ", ".join(f"{json.dumps(label)} = {number:.6g}" for label, number in (numbers or {}).items())
    score = f"{{ expected = {{ {pairs} }} }}" if numbers else "{ argmax = true }"
    keys = {**distilled.annotator, "model": str(distilled.path)}
    lines = [
        f"[annotators.{_key(f'{name}_{distilled.agreements[0].kind}')}]",
        *(f"{key} = {json.dumps(value)}" for key, value in keys.items()),
    ]
    if distilled.agreements[0].kind != "fasttext":
        return "\n".join([*lines, f"heads = {{ {_key(name)} = {{ score = {score} }} }}"])
    return "\n".join([*lines, f"score = {score}"])


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name)


def _excluded(agreement: Agreement) -> Iterator[str]:
    if agreement.unscored:
        yield f"{agreement.unscored:,} more have no feature that the classifier knows"
    if agreement.untaught:
        yield f"{agreement.untaught:,} have a label that no text taught; each counts as wrong"


def _metrics(distilled: Distilled) -> Table:
    names = list(distilled.agreements[0].metrics)
    table = _table("agreement with the teacher", "kind", *names, "calibration error")
    table.caption = "In brackets: 95 % intervals over domains."
    for each in distilled.agreements:
        numbers = (_shown(each.metrics[name]) for name in names)
        table.add_row(each.kind, *numbers, f"{each.calibration_error:.3f}")
    return table


def _differences(distilled: Distilled) -> Table:
    first, *others = distilled.agreements
    table = _table(f"{first.kind} less the other, in the same samples", "other", *first.metrics)
    for each in others:
        table.add_row(each.kind, *(_shown(each.differences.get(name), sign="+") for name in first.metrics))
    return table


def _shown(interval: Interval | None, *, sign: str = "") -> str:
    if interval is None:
        return "—"
    form = f"{sign}.3f"
    if interval.low is None or interval.high is None:
        return format(interval.value, form)
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def _confusion(agreement: Agreement, counts: NumPyArray, *, numbers: Mapping[str, float]) -> Table:
    """A line for each label that a held-out text has; a column for each label that one has or was predicted to have."""
    labels, texts, predicted = agreement.labels, counts.sum(axis=1), counts.sum(axis=0)
    order = sorted(range(len(labels)), key=lambda place: (numbers.get(labels[place], 0), labels[place]))
    rows = [row for row in order if texts[row]]
    columns = [column for column in order if texts[column] or predicted[column]]
    if len(columns) <= _MOST_COLUMNS:
        table = _table("labels", "teacher", *(labels[column] for column in columns))
        for row in rows:
            table.add_row(labels[row], *(f"{counts[row, column]:,}" for column in columns))
        return table
    table = _table("labels", "teacher", "texts", "share right")
    table.add_column("classifier")
    for row in sorted(rows, key=lambda row: -texts[row])[:_MOST_LINES]:
        ranked = [int(column) for column in np.argsort(-counts[row], kind="stable") if counts[row, column]]
        named = ", ".join(f"{labels[column]} {counts[row, column]:,}" for column in ranked[:_NAMED])
        more = ", …" if len(ranked) > _NAMED else ""
        table.add_row(labels[row], f"{texts[row]:,}", f"{counts[row, row] / texts[row]:.3f}", named + more)
    if len(rows) > _MOST_LINES:
        table.caption = f"{len(rows) - _MOST_LINES:,} rarer labels are in the model card."
    return table


def _calibration(agreement: Agreement) -> Table:
    table = _table("probability of the best label", "from, to", "texts", "mean probability", "share right")
    for number, each in enumerate(agreement.calibration):
        if each is not None:
            tenth = f"{number / 10:.1f} to {(number + 1) / 10:.1f}"
            table.add_row(tenth, f"{each.texts:,}", f"{each.mean_probability:.3f}", f"{each.accuracy:.3f}")
    return table


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title)
    table.add_column(first, overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right")
    return table


def _most_wrong(agreement: Agreement) -> Iterator[str]:
    if agreement.most_wrong:
        yield from ("", "most wrong: teacher → classifier (its probability)  id  domain")
    for wrong in agreement.most_wrong:
        yield f"  {_value(wrong)} → {wrong.predicted} ({wrong.probability:.3f})  {wrong.id}  {wrong.group}"
        yield f"    {textwrap.shorten(wrong.text, 110, placeholder=' …')}"


def _value(wrong: Wrong) -> str:
    if isinstance(wrong.teacher, float):
        return f"{wrong.teacher:.4g}"
    return ", ".join(wrong.teacher) if isinstance(wrong.teacher, list) else str(wrong.teacher)
