"""Training curves and evaluations on the page. The command reads them, because it alone knows the trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from colophon.pipeline.reports.evaluation_tables import evaluation_tables, legend
from colophon.pipeline.reports.page import charts, markup
from colophon.pipeline.reports.page.markup import Html

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


def evaluation_parts(trainings: Trainings) -> Iterator[Html]:
    """Yield the tables of each evaluation; a line in place of one that is damaged."""
    for path, evaluation in trainings.evaluations.items():
        yield Html(f"<h3>{markup.shown(path)}</h3>")
        try:
            found = [evaluation]
            tables = [markup.from_terminal(table) for table in evaluation_tables(found)]  # type: ignore[arg-type]
            notes = [markup.paragraph(line, kind="note") for line in legend(found)]  # type: ignore[arg-type]
            yield markup.joined([*tables, *notes])
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            yield markup.paragraph("It is damaged, or of a different version. `colophon evaluate` writes it again.")
