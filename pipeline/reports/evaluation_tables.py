"""What `colophon evaluate` shows: a table of all models and conditions, and one for each column of `--by`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from colophon.pipeline.errors import printable

_NOTHING = "—"


def print_evaluation(evaluations: Sequence[dict[str, Any]], *, console: Console) -> None:
    """Tables of `evaluation.json` of each model, all over the same documents."""
    documents = evaluations[0]["documents"]
    console.print(
        f"\n{documents['documents']:,} documents, their first {documents['crop']} tokens: {documents['tokens']:,} "
        f"tokens, {documents['bytes']:,} bytes. In brackets: 95 % of {evaluations[0]['resamples']:,} resamples.",
        highlight=False,
    )
    console.print(_overview(evaluations))
    for column in evaluations[0]["by"]:
        console.print(_by(evaluations, column))


def _overview(evaluations: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "layout", "condition"):
        table.add_column(name)
    for name in ("nats/token", "bits/byte", "less the model's first", "less the first of all"):
        table.add_column(name, justify="right")
    first = _first(evaluations[0])
    for evaluation in evaluations:
        for condition, found in evaluation["conditions"].items():
            table.add_row(
                printable(evaluation["model"]),
                printable(evaluation["layout"]),
                condition,
                _interval(found["nats_per_token"]),
                _interval(found["bits_per_byte"]),
                _interval(_difference(evaluation, condition, _first(evaluation)), signed=True),
                _interval(_difference(evaluation, condition, first), signed=True),
            )
    return table


def _by(evaluations: Sequence[dict[str, Any]], column: str) -> Table:
    """bits/byte, a row for each value, ± half the interval."""
    table = Table(box=None, pad_edge=False, header_style="bold", title=f"bits/byte by {column}", title_justify="left")
    table.add_column(column, overflow="fold", max_width=40)
    table.add_column("documents", justify="right")
    for evaluation in evaluations:
        for condition in evaluation["conditions"]:
            table.add_column(f"{printable(evaluation['model'])} {condition}", justify="right")
    groups = zip(*(evaluation["by"][column]["groups"] for evaluation in evaluations), strict=True)
    for of_models in groups:
        found = [each["bits_per_byte"] for group in of_models for each in group["conditions"].values()]
        value = of_models[0]["value"]
        table.add_row(
            _NOTHING if value is None else printable(value),
            f"{of_models[0]['documents']:,}",
            *(_spread(estimate) for estimate in found),
        )
    left_out = evaluations[0]["by"][column]["left_out_documents"]
    if left_out:
        table.caption = f"and {left_out:,} documents of smaller groups"
    return table


def _first(evaluation: dict[str, Any]) -> tuple[str, str]:
    return evaluation["model"], next(iter(evaluation["conditions"]))


def _difference(evaluation: dict[str, Any], condition: str, base: tuple[str, str]) -> dict[str, Any] | None:
    """In bits/byte from `base`, a model and a condition; None for the difference of something from itself."""
    for difference in _differences(evaluation, condition):
        minus = difference["minus"]
        if (minus["model"], minus["condition"]) == base:
            found: dict[str, Any] = difference["bits_per_byte"]
            return found
    return None


def _differences(evaluation: dict[str, Any], condition: str) -> Iterator[dict[str, Any]]:
    return (difference for difference in evaluation["differences"] if difference["condition"] == condition)


def _interval(estimate: dict[str, Any] | None, *, signed: bool = False) -> str:
    if estimate is None:
        return _NOTHING
    sign = "+" if signed else ""
    value = f"{estimate['value']:{sign}.4f}"
    return value if estimate["low"] is None else f"{value} [{estimate['low']:{sign}.4f}, {estimate['high']:{sign}.4f}]"


def _spread(estimate: dict[str, Any]) -> str:
    """Shorter: half the interval's width, for tables with many columns."""
    value = f"{estimate['value']:.4f}"
    return value if estimate["low"] is None else f"{value} ±{(estimate['high'] - estimate['low']) / 2:.4f}"
