"""Tables fit a terminal of 80 columns without cutting numbers, and are plain text in a pipe."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from colophon.pipeline.reports.summary import print_summary
from colophon.pipeline.reports.tables import print_table
from tests.pipeline.project import colophon, manifest

NUMBERS = [f"{10**n + n:,}" for n in range(4, 13)]


def numbers_table() -> Table:
    table = Table(title="a title")
    table.add_column("layout", overflow="fold")
    for column in range(len(NUMBERS)):
        table.add_column(f"column {column}", justify="right")
    for name in ("plain", "a-layout-with-a-name-of-more-than-thirty-characters"):
        table.add_row(name, *NUMBERS)
    return table


def printed(table: Table, *, width: int | None) -> str:
    """The table on a terminal of that width; None: in a pipe."""
    file = io.StringIO()
    terminal = {} if width is None else {"force_terminal": True, "color_system": None, "width": width}
    print_table(table, console=Console(file=file, **terminal))
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 250])
def test_a_wide_table_is_printed_in_parts_with_all_numbers_whole(width: int) -> None:
    lines = printed(numbers_table(), width=width).splitlines()
    assert max(map(len, lines)) <= width
    for number in NUMBERS:
        assert sum(re.search(rf"(?<![\d,]){number}(?![\d,])", line) is not None for line in lines) == 2
    headings = [line for line in lines if "layout" in line and "column" in line]
    assert (len(headings) == 1) == (width == 250)


def test_in_a_pipe_a_row_is_one_line_of_plain_text() -> None:
    title, heading, *rows = printed(numbers_table(), width=None).splitlines()
    assert title == "a title"
    assert re.split(" {2,}", heading) == ["layout", *(f"column {n}" for n in range(len(NUMBERS)))]
    assert [re.split(" {2,}", row) for row in rows] == [
        ["plain", *NUMBERS],
        ["a-layout-with-a-name-of-more-than-thirty-characters", *NUMBERS],
    ]
    assert all(row.isascii() and row == row.rstrip() for row in rows)
    assert len({len(row) for row in rows}) == 1


def test_line_ends_in_a_cell_do_not_break_a_row() -> None:
    table = Table()
    table.add_column("value")
    table.add_row("two\nlines\x1b[31m")
    assert printed(table, width=None).splitlines() == ["value", r"two lines\x1b[31m"]


def test_the_summary_of_a_run_fits_80_columns(finished: Path) -> None:
    summary = json.loads(Path("out/report/summary.json").read_text())
    file = io.StringIO()
    print_summary(summary, manifest(), console=Console(file=file, force_terminal=True, color_system=None, width=80))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for layout in summary["layouts"].values():
        for number in (layout["sequences"], layout["tokens"]["text"], layout["tokens"]["pad"]):
            assert any(f" {number:,} " in line for line in lines), number
    for timing in summary["passes"].values():
        assert any(f" {timing['documents_per_second']:,.0f} " in line for line in lines)


@pytest.mark.parametrize("command", [("status", "recipe.toml"), ("inspect", "recipe.toml")])
def test_piped_commands_print_no_lines_of_boxes(finished: Path, command: tuple[str, ...]) -> None:
    called = colophon(*command)
    assert called.code == 0
    assert not re.search("[\u2500-\u257f]", called.out)
