"""Tables of `colophon evaluate`: the differences, then the losses, then one table for each column of `--by`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from colophon.pipeline.errors import printable
from colophon.pipeline.reports.tables import print_table

_MISSING = "—"
_UNSEEN = "*"
_ORIGINS = {
    "held_out": "held out of the training",
    "other_run": "of {output}",
    "trained_on": "of {output}, most of which were trained on; without --output, the held-out ones are measured",
}


def print_evaluation(evaluations: Sequence[dict[str, Any]], *, console: Console) -> None:
    """Print the tables of each model's `evaluation.json`, all over the same documents."""
    documents = evaluations[0]["documents"]
    origin = _ORIGINS[documents["origin"]].format(output=printable(documents["output"]))
    console.print(
        f"\n{documents['documents']:,} documents {origin}; their first {documents['crop']} tokens: "
        f"{documents['tokens']:,} tokens, {documents['bytes']:,} bytes.",
        highlight=False,
    )
    for table in evaluation_tables(evaluations):
        print_table(table, console=console)


def evaluation_tables(evaluations: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Yield the tables of each model's `evaluation.json`, all over the same documents."""
    rows = list(differences(evaluations))
    if rows:
        yield _difference_table(rows)
    yield _losses(evaluations)
    for evaluation in evaluations:
        if evaluation["metadata"] is not None:
            yield _metadata_table(evaluation)
    for column in evaluations[0]["by"]:
        yield _by_column(evaluations, column)


def legend(evaluations: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield lines that explain the tables."""
    first = evaluations[0]
    yield (
        f"In brackets: 95 % of {first['resamples']:,} resamples of the documents. They show how much the numbers depend"
        " on the documents, not on the seed of the training: to call a model better, train it with several seeds."
    )
    if any(not losses["seen_in_training"] for one in evaluations for losses in one["conditions"].values()):
        yield f"{_UNSEEN}: the model has read no such context in training, so no difference is taken from it."
    if any("shuffled" in evaluation["conditions"] for evaluation in evaluations):
        yield "Control: shuffled gives each text the metadata of a different document."
    if any(evaluation["metadata"] is not None for evaluation in evaluations):
        yield (
            "Metadata is right if every token of it is predicted. Without the text: after bos alone. Most frequent: "
            "the best constant prediction for these documents."
        )
    if first["by"]:
        yield "By column: ± is half the width of a value's interval."
    for column, groups in first["by"].items():
        if groups["small_groups"]:
            yield f"{column}: {groups['small_groups']:,} groups of fewer than 5 documents are not shown."


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference of two losses of the same texts, in bits per byte; below 0, the first one is lower."""

    kind: str
    """`models`, `context` or `control`."""
    label: str
    base: str
    estimate: Mapping[str, Any]
    """Its `value`, and the ends `low` and `high` of its interval, None where one document was measured."""


def differences(evaluations: Sequence[dict[str, Any]]) -> Iterator[Difference]:
    """Yield what is compared, with what, and the difference: first the models, then contexts, then controls.

    Models are compared with the first one that reads no metadata, or else with the first one.
    """
    leads = [(evaluation["model"], next(iter(evaluation["conditions"]))) for evaluation in evaluations]
    reference = next((lead for lead in leads if lead[1] == "none"), leads[0])
    for kind in ("models", "context", "control"):
        for evaluation in evaluations:
            for found in evaluation["differences"]:
                base = (found["against"]["model"], found["against"]["condition"])
                if found["kind"] != kind or (kind == "models" and base != reference):
                    continue
                name = f"{printable(evaluation['model'])} {found['condition']}"
                label = f"control: {name}" if kind == "control" else name
                yield Difference(
                    kind=kind, label=label, base=f"{printable(base[0])} {base[1]}", estimate=found["bits_per_byte"]
                )


def _difference_table(rows: Sequence[Difference]) -> Table:
    table = _table("difference", "from", title="Differences in bits/byte; below 0 the left one is better")
    table.add_column("Δ bits/byte", justify="right")
    for row in rows:
        table.add_row(row.label, row.base, _with_interval(row.estimate, signed=True))
    return table


def _losses(evaluations: Sequence[dict[str, Any]]) -> Table:
    table = _table("model", "layout", "condition", title="Losses")
    for name in ("nats/token", "bits/byte"):
        table.add_column(name, justify="right")
    for evaluation in evaluations:
        for condition, losses in evaluation["conditions"].items():
            table.add_row(
                printable(evaluation["model"]),
                printable(evaluation["layout"]),
                _condition(condition, losses),
                _with_interval(losses["nats_per_token"]),
                _with_interval(losses["bits_per_byte"]),
            )
    return table


def _condition(condition: str, losses: dict[str, Any]) -> str:
    control = " (control)" if condition == "shuffled" else ""
    return f"{condition}{control}{'' if losses['seen_in_training'] else _UNSEEN}"


def _metadata_table(evaluation: dict[str, Any]) -> Table:
    """The share of documents whose metadata is predicted as a whole, beside two baselines that read no text."""
    found = evaluation["metadata"]
    title = f"{printable(evaluation['model'])}: metadata predicted as a whole, of {found['documents']:,} documents"
    table = _table("prediction", title=title)
    for name in ("right", "gain of the first row"):
        table.add_column(name, justify="right")
    value = printable(found["most_frequent_value"])
    table.add_row("after the text", _share(found["accuracy"]), "")
    table.add_row("without the text", _share(found["without_text"]), _share(found["over_without_text"], signed=True))
    constant = f"most frequent: {value if len(value) <= 40 else value[:39] + '…'}"
    table.add_row(constant, _share(found["most_frequent"]), _share(found["over_most_frequent"], signed=True))
    return table


def _by_column(evaluations: Sequence[dict[str, Any]], column: str) -> Table:
    """bits/byte with half its interval's width, a row for each value of the column."""
    table = _table(title=f"bits/byte by {column}")
    table.add_column(column, overflow="fold", max_width=40)
    table.add_column("documents", justify="right")
    for evaluation in evaluations:
        for condition, losses in evaluation["conditions"].items():
            table.add_column(f"{printable(evaluation['model'])} {_condition(condition, losses)}", justify="right")
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


def _table(*columns: str, title: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title=f"\n{title}")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _with_interval(estimate: Mapping[str, Any], *, signed: bool = False) -> str:
    """`1.2345 [1.2300, 1.2400]`."""
    sign = "+" if signed else ""
    value = f"{estimate['value']:{sign}.4f}"
    return value if estimate["low"] is None else f"{value} [{estimate['low']:{sign}.4f}, {estimate['high']:{sign}.4f}]"


def _share(estimate: dict[str, Any], *, signed: bool = False) -> str:
    """`71.2 % [65.0, 77.1]`."""
    sign = "+" if signed else ""
    value = f"{100 * estimate['value']:{sign}.1f} %"
    if estimate["low"] is None:
        return value
    return f"{value} [{100 * estimate['low']:{sign}.1f}, {100 * estimate['high']:{sign}.1f}]"


def _with_half_width(estimate: dict[str, Any]) -> str:
    """`1.2345 ±0.0050`, which is shorter, for tables with many columns."""
    value = f"{estimate['value']:.4f}"
    return value if estimate["low"] is None else f"{value} ±{(estimate['high'] - estimate['low']) / 2:.4f}"
