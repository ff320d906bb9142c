"""The page of a comparison: one HTML file, as that of a run."""

from __future__ import annotations

from collections.abc import Iterator

from colophon.pipeline.reports.comparison import tables
from colophon.pipeline.reports.comparison.columns import ComparedColumn
from colophon.pipeline.reports.comparison.comparison import Comparison
from colophon.pipeline.reports.comparison.documents import NUM_EXAMPLES, ChangedColumn
from colophon.pipeline.reports.page import charts, markup
from colophon.pipeline.reports.page.markup import Html
from colophon.pipeline.reports.page.page import Page, page_of_sections
from colophon.shards.schema import ROLE_NAMES

COMPARISON = "report/comparison.html"
_MOST_VALUES = 100


def comparison_page(found: Comparison) -> Page:
    """The page of a comparison."""
    figures = markup.Charts()
    content = {
        "Runs": list(_runs(found)),
        "Settings": [markup.from_terminal(table) for table in tables.setting_tables(found) if table.row_count],
        "Columns": list(_columns(found, figures)),
        "Changed documents": list(_changed(found)),
        "Layouts": list(_layouts(found, figures)),
    }
    documents = 0 if found.documents is None else found.documents.both
    title = f"From A, {found.paths[0]}, to B, {found.paths[1]}"
    return page_of_sections(title, content, figures, documents=documents)


def _runs(found: Comparison) -> Iterator[Html]:
    for line in (*tables.headings(found), *found.notes):
        yield markup.paragraph(line)


def _columns(found: Comparison, figures: markup.Charts) -> Iterator[Html]:
    table = tables.column_table(found)
    if not table.row_count:
        return
    yield markup.from_terminal(table)
    drawn = [_figure(column, figures) for column in found.columns if any(map(any, column.counts))]
    if drawn:
        yield Html(f'<div class="figures">{markup.joined(drawn)}</div>')


def _figure(column: ComparedColumn, figures: markup.Charts) -> Html:
    distance = "" if column.total_variation is None else f": total variation {column.total_variation:.3f}"
    shares = column.shares
    if column.bins is None:
        spec = charts.compared_values(column.values, shares)
    else:
        spec = charts.compared_numbers(column.name, column.bins, shares)
    rows = [
        (value, f"{a:,}", f"{share_a:.2%}", f"{b:,}", f"{share_b:.2%}", f"{100 * (share_b - share_a):+.2f}")
        for value, (a, b), (share_a, share_b) in zip(column.values, column.counts, shares, strict=True)
    ]
    headings = ("value", "A", "share of known", "B", "share of known", "Δ in points")
    numbers = markup.table(column.name, headings, rows[:_MOST_VALUES], numeric=range(1, 6))
    return figures.figure(spec, title=f"{column.name}{distance}", numbers=numbers)


def _changed(found: Comparison) -> Iterator[Html]:
    columns = [] if found.documents is None else [one for one in found.documents.columns if one.examples]
    examples = tables.example_tables(found, most=NUM_EXAMPLES)
    for column, table in zip(columns, examples, strict=True):
        yield _confusion(column)
        yield markup.from_terminal(table)


def _confusion(column: ChangedColumn) -> Html:
    """The documents of both runs by their value in A, down, and in B, across."""
    counts = {(before, after): n for before, after, n in column.pairs}
    down, across = (sorted({pair[place] for pair in counts}) for place in (0, 1))
    rows = [
        (before, *(f"{counts[before, after]:,}" if (before, after) in counts else "" for after in across))
        for before in down
    ]
    share = column.changed / max(column.documents, 1)
    caption = f"{column.name}: {column.changed:,} of {column.documents:,} documents changed ({share:.1%})"
    headings = ("A, down; B, across", *across)
    return markup.table(caption, headings, rows, numeric=range(1, len(headings)), has_row_headings=True)


def _layouts(found: Comparison, figures: markup.Charts) -> Iterator[Html]:
    table = tables.layout_table(found)
    if not table.row_count:
        return
    costs = {
        f"{name} ({run})": cost
        for name, pair in found.layouts.items()
        for run, cost in zip("AB", pair, strict=True)
        if cost is not None
    }
    rows = [(name, *(f"{cost.by_role[role]:,}" for role in ROLE_NAMES)) for name, cost in costs.items()]
    numbers = markup.table("Tokens by role", ("layout", *ROLE_NAMES), rows, numeric=range(1, 1 + len(ROLE_NAMES)))
    roles = charts.layout_roles({name: {"tokens": cost.by_role} for name, cost in costs.items()})
    yield figures.figure(roles, title="Tokens by role", numbers=numbers)
    yield markup.from_terminal(table)
