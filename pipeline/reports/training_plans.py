"""The table of `colophon train --dry-run`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from colophon.pipeline.errors import printable
from colophon.pipeline.estimates.estimate import size_text
from colophon.pipeline.reports.tables import print_table

_NUMBERS = ("steps", "tokens", "text tokens", "epochs", "at once", "parameters", "memory")


def print_training_plans(plans: Sequence[Mapping[str, Any]], *, console: Console) -> None:
    """Print a row for each run, and what its numbers mean.

    Args:
        plans: the JSON of `colophon train --dry-run`.
        console: where to print.
    """
    table = Table(title="training runs that would be started")
    table.add_column("run", overflow="fold")
    table.add_column("layouts", overflow="fold")
    for name in _NUMBERS:
        table.add_column(name, justify="right")
    for plan in plans:
        table.add_row(*_cells(plan))
    print_table(table, console=console)
    for line in _notes(plans):
        console.print(line, highlight=False, soft_wrap=True)


def _cells(plan: Mapping[str, Any]) -> list[str]:
    by_documents, epochs = plan["pairing"] is not None, plan["epochs"]
    return [
        printable(plan["name"]),
        printable(", ".join(plan["layouts"])),
        f"{plan['steps']:,}",
        f"{'about ' if by_documents else ''}{plan['tokens']:,}",
        f"{plan['text_tokens']:,}",
        "" if epochs is None else f"{epochs:.2f}",
        f"{'up to ' if plan['micro_batch_is_searched'] else ''}{plan['micro_batch_size']:,} of {plan['batch_size']:,}",
        f"{plan['num_parameters']:,}",
        size_text(plan["state_bytes"]),
    ]


def _notes(plans: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "at once: sequences of a micro-batch, of those of an update"
    yield "memory: weights, gradients and the optimizer's state; activations come on top"
    by_pairing: dict[str, list[str]] = {}
    for plan in plans:
        if plan["pairing"] is not None:
            by_pairing.setdefault(plan["pairing"], []).append(printable(plan["name"]))
    for names in by_pairing.values():
        if len(names) > 1:
            yield f"the same text in every update, and the same validation documents: {', '.join(names)}"
    for plan in plans:
        if plan["exists"]:
            so_far = "without a checkpoint" if plan["checkpoint"] is None else f"with step {plan['checkpoint']:,}"
            name, directory = printable(plan["name"]), printable(plan["directory"])
            yield f"{name}: {directory} exists, {so_far}: --resume continues it, --overwrite deletes it"
