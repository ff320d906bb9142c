"""Training curves and evaluations on the page. The command reads them, because it alone knows the trainer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from colophon.pipeline.reports.evaluation_tables import differences, evaluation_tables, legend
from colophon.pipeline.reports.page import charts, markup
from colophon.pipeline.reports.page.markup import Html

_TITLE = "What metadata does to the loss of the same texts"
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """The results of `colophon train` and `colophon evaluate` under a run's output."""

    curves: Mapping[str, Mapping[str, Points]] = field(default_factory=dict)
    """By quantity and training: steps and values."""
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By path, the content of `evaluation*.json`."""


def training_parts(trainings: Trainings, figures: markup.Charts) -> Iterator[Html]:
    """Yield a chart of each quantity with the last value of each training."""
    for quantity, named in trainings.curves.items():
        rows = [(name, f"{points[-1][0]:,.0f}", f"{points[-1][1]:.4f}") for name, points in named.items() if points]
        numbers = markup.table(f"Last {quantity}", ("training", "step", "value"), rows, numeric=(1, 2))
        yield figures.figure(charts.curves(named, title=quantity), title=quantity, numbers=numbers)


def evaluation_parts(trainings: Trainings, figures: markup.Charts) -> Iterator[Html]:
    """Yield the tables of evaluations, and a chart of their differences; a line in place of one that is damaged.

    Models that were scored on the same documents are compared with each other, as `colophon evaluate` does.
    """
    for paths, found in _on_the_same_documents(trainings.evaluations):
        yield Html(f"<h3>{markup.shown(', '.join(paths))}</h3>")
        try:
            tables = [markup.from_terminal(table) for table in evaluation_tables(found)]
            notes = [markup.paragraph(line, kind="note") for line in legend(found)]
            compared = list(differences(found))
            drawn = charts.differences(compared) if compared else None
            note = list(_note(found)) if compared else []
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            yield markup.paragraph("It is damaged, or of a different version. `colophon evaluate` writes it again.")
            continue
        if drawn is not None:
            yield figures.figure(drawn, title=_TITLE, note=note)
        yield markup.joined([*tables, *notes])


def _note(evaluations: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield lines on what was measured, and on what it does not show."""
    first = evaluations[0]
    documents, tokens = first["documents"]["documents"], first["documents"]["crop"]
    steps = ", ".join(f"{one['model']} {one['step']:,}" for one in evaluations)
    yield f"The first {tokens:,} tokens of {documents:,} documents. Steps of training: {steps}."
    yield f"Lines: 95 % of {first['resamples']:,} resamples of the documents."
    yield "Each model was trained with one seed; another seed may move a point further than its line."


def _on_the_same_documents(
    evaluations: Mapping[str, Mapping[str, Any]],
) -> list[tuple[list[str], list[dict[str, Any]]]]:
    """The evaluations that one call of `colophon evaluate` wrote, with their paths; a damaged one is alone."""
    groups: dict[str, tuple[list[str], list[dict[str, Any]]]] = {}
    for path, evaluation in evaluations.items():
        try:
            models = {evaluation["model"], *(one["against"]["model"] for one in evaluation["differences"])}
            key = json.dumps([evaluation["documents"], sorted(evaluation["by"]), sorted(models)], sort_keys=True)
        except (LookupError, TypeError):
            key = path
        paths, found = groups.setdefault(key, ([], []))
        paths.append(path)
        found.append(dict(evaluation))
    return list(groups.values())
