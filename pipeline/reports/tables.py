"""Tables on a terminal and in a pipe.

On a terminal a table that is too wide is printed as several, each with the first column, so that no number is cut. To a
file or a pipe it is plain text: columns separated by two spaces, one line for each row, whatever its width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from colophon.pipeline.errors import printable

_UNLIMITED = 100_000
_NARROWEST_TEXT = 16
"""Columns that may be folded get at least so many characters."""


def print_table(table: Table, *, console: Console) -> None:
    """Print a table with its title and caption, in the form that fits where the console writes to."""
    title, table.title = table.title, None
    caption, table.caption = table.caption, None
    if title is not None:
        console.print(_plain(title), style="bold", highlight=False, soft_wrap=not console.is_terminal)
    if console.is_terminal:
        for part in _parts(table, console=console):
            console.print(part)
    else:
        for line in plain_lines(table):
            console.print(line, highlight=False, soft_wrap=True)
    if caption is not None:
        console.print(_plain(caption), style="dim", highlight=False, soft_wrap=not console.is_terminal)


def plain_rows(table: Table) -> list[tuple[str, ...]]:
    """The headings and then the rows of a table, as text."""
    columns = [[_cell(column.header), *map(_cell, column._cells)] for column in table.columns]
    return list(zip(*columns, strict=True))


def plain_lines(table: Table) -> Iterator[str]:
    """Yield the headings, if they are shown, and the rows, with aligned columns."""
    rows = plain_rows(table)
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows if table.show_header else rows[1:]:
        padded = (
            cell.rjust(width) if column.justify == "right" else cell.ljust(width)
            for cell, width, column in zip(row, widths, table.columns, strict=True)
        )
        yield "  ".join(padded).rstrip()


def _parts(table: Table, *, console: Console) -> Iterator[Table]:
    """Yield the table, or as many tables as its columns need; the first column is in each."""
    first, *others = table.columns
    chosen: list[Column] = []
    for column in others:
        if chosen and not _fits(_with_columns(table, [first, *chosen, column]), console=console):
            yield _with_columns(table, [first, *chosen])
            chosen = []
        chosen.append(column)
    yield _with_columns(table, [first, *chosen])


def _with_columns(table: Table, columns: Sequence[Column]) -> Table:
    """Return the table with some of its columns only."""
    part = Table(
        box=table.box,
        padding=table.padding,
        pad_edge=table.pad_edge,
        show_header=table.show_header,
        header_style=table.header_style,
    )
    part.columns = [
        replace(column, _index=index, no_wrap=column.justify == "right") for index, column in enumerate(columns)
    ]
    part.rows = table.rows
    return part


def _fits(table: Table, *, console: Console) -> bool:
    """Whether the table has room for its numbers whole, and for some characters of each text that may be folded."""
    limited = _with_columns(table, [_limited(column) for column in table.columns])
    options = console.options.update(max_width=_UNLIMITED)
    return Measurement.get(console, options, limited).maximum <= console.width


def _limited(column: Column) -> Column:
    if column.overflow != "fold":
        return column
    return replace(column, max_width=min(column.max_width or _NARROWEST_TEXT, _NARROWEST_TEXT))


def _cell(cell: RenderableType) -> str:
    """Return a cell as text of one line."""
    return _plain(cell).replace("\n", " ")


def _plain(text: RenderableType) -> str:
    return printable(text.plain if isinstance(text, Text) else str(text)).strip("\n")
