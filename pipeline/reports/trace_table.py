"""The table of `colophon trace`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from colophon.pipeline.errors import UsageError, printable
from colophon.pipeline.reports.inspection import as_json
from colophon.pipeline.reports.tables import print_table
from colophon.shards.common.errors import did_you_mean

_LONGEST_VALUE = 60


def as_json_value(value: Any) -> Any:
    """A value as JSON, with the values of its lists and objects as in `inspect`."""
    if isinstance(value, dict):
        return {key: as_json_value(one) for key, one in value.items()}
    return [as_json_value(one) for one in value] if isinstance(value, list) else as_json(value)


def print_trace(trace: Mapping[str, Any], *, count: int, columns: Sequence[str] | None, console: Console) -> None:
    """Print the first `count` documents of an update, with these annotation columns, or with all.

    Args:
        trace: the JSON of `colophon trace`.
        count: rows of the table.
        columns: None: all.
        console: where to print.

    Raises:
        UsageError: the run has no such column.
    """
    documents = trace["documents"]
    known = list(dict.fromkeys(name for document in documents for name in document["annotations"]))
    for name in columns or []:
        if name not in known:
            available = ", ".join(known) or "none"
            raise UsageError(f"--column: unknown column {name!r}; available: {available}{did_you_mean(name, known)}")
    shown = known if columns is None else list(dict.fromkeys(columns))
    loss = "" if trace["text_loss"] is None else f", text loss {trace['text_loss']:.4f}"
    rest = len(documents) - count
    table = Table(
        title=f"step {trace['step']:,}: {len(documents):,} documents, {trace['text_tokens']:,} text tokens{loss}",
        caption=f"{rest:,} more documents: --documents {len(documents)} prints all" if rest > 0 else None,
    )
    table.add_column("id", overflow="fold")
    table.add_column("loss", justify="right")
    table.add_column("tokens", justify="right")
    table.add_column("row", justify="right")
    table.add_column("partition", overflow="fold")
    for name in shown:
        table.add_column(printable(name), overflow="fold")
    for document in documents[:count]:
        table.add_row(*_cells(document, shown))
    print_table(table, console=console)


def _cells(document: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    loss, annotations = document["text_loss"], document["annotations"]
    return [
        printable(document["id"] or "null"),
        "" if loss is None else f"{loss:.4f}",
        f"{document['text_tokens']:,}",
        str(document["row"]),
        printable(document["partition"]),
        *(_cell(annotations.get(name)) for name in columns),
    ]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    text = "null" if value is None else printable(str(value))
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
