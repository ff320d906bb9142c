"""Tables of `colophon evaluate`: one of all models and conditions, and one for each column of `--by`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from colophon.pipeline.errors import printable

_MISSING = "—"


class Baseline(NamedTuple):
    """A model and a condition that others are compared with."""

    model: str
    condition: str


def print_evaluation(evaluations: Sequence[dict[str, Any]], *, console: Console) -> None:
    """Print the tables of each model's `evaluation.json`, all over the same documents."""
    documents = evaluations[0]["documents"]
    console.print(
        f"\n{documents['documents']:,} documents, their first {documents['crop']} tokens: {documents['tokens']:,} "
        f"tokens, {documents['bytes']:,} bytes. In brackets: 95 % of {evaluations[0]['resamples']:,} resamples.",
        highlight=False,
    )
    console.print(_overview(evaluations))
    for column in evaluations[0]["by"]:
        console.print(_by_column(evaluations, column))


def baseline(evaluation: dict[str, Any]) -> Baseline:
    """The model and the first of its conditions."""
    return Baseline(evaluation["model"], next(iter(evaluation["conditions"])))


def difference_titles(evaluations: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """The titles of the columns of differences: from the model's own first condition, and from the first row.

    `Δ against own none` and `Δ against plain none`, or `Δ against own first` where the models begin with different
    conditions.
    """
    own = {baseline(evaluation).condition for evaluation in evaluations}
    first = baseline(evaluations[0])
    return (
        f"Δ against own {own.pop() if len(own) == 1 else 'first'}",
        f"Δ against {printable(first.model)} {first.condition}",
    )


def _overview(evaluations: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "layout", "condition"):
        table.add_column(name)
    for name in ("nats/token", "bits/byte", *difference_titles(evaluations)):
        table.add_column(name, justify="right")
    first_row = baseline(evaluations[0])
    for evaluation in evaluations:
        for condition, losses in evaluation["conditions"].items():
            table.add_row(
                printable(evaluation["model"]),
                printable(evaluation["layout"]),
                condition,
                _with_interval(losses["nats_per_token"]),
                _with_interval(losses["bits_per_byte"]),
                _with_interval(_difference(evaluation, condition, baseline(evaluation)), signed=True),
                _with_interval(_difference(evaluation, condition, first_row), signed=True),
            )
    return table


def _by_column(evaluations: Sequence[dict[str, Any]], column: str) -> Table:
    """bits/byte with half its interval's width, a row for each value of the column."""
    table = Table(box=None, pad_edge=False, header_style="bold", title=f"bits/byte by {column}", title_justify="left")
    table.add_column(column, overflow="fold", max_width=40)
    table.add_column("documents", justify="right")
    for evaluation in evaluations:
        for condition in evaluation["conditions"]:
            table.add_column(f"{printable(evaluation['model'])} {condition}", justify="right")
    groups = zip(*(evaluation["by"][column]["groups"] for evaluation in evaluations), strict=True)
    for of_models in groups:
        estimates = [losses["bits_per_byte"] for group in of_models for losses in group["conditions"].values()]
        value = of_models[0]["value"]
        table.add_row(
            _MISSING if value is None else printable(value),
            f"{of_models[0]['documents']:,}",
            *map(_with_half_width, estimates),
        )
    excluded = evaluations[0]["by"][column]["excluded_documents"]
    if excluded:
        table.caption = f"and {excluded:,} documents of smaller groups"
    return table


def _difference(evaluation: dict[str, Any], condition: str, base: Baseline) -> dict[str, Any] | None:
    """The difference in bits/byte from `base`; None where `condition` of this model is `base` itself."""
    for difference in evaluation["differences"]:
        if difference["condition"] == condition and Baseline(**difference["against"]) == base:
            found: dict[str, Any] = difference["bits_per_byte"]
            return found
    return None


def _with_interval(estimate: dict[str, Any] | None, *, signed: bool = False) -> str:
    """`1.2345 [1.2300, 1.2400]`."""
    if estimate is None:
        return _MISSING
    sign = "+" if signed else ""
    value = f"{estimate['value']:{sign}.4f}"
    return value if estimate["low"] is None else f"{value} [{estimate['low']:{sign}.4f}, {estimate['high']:{sign}.4f}]"


def _with_half_width(estimate: dict[str, Any]) -> str:
    """`1.2345 ±0.0050`, which is shorter, for tables with many columns."""
    value = f"{estimate['value']:.4f}"
    return value if estimate["low"] is None else f"{value} ±{(estimate['high'] - estimate['low']) / 2:.4f}"
