"""The tables of a comparison, for the terminal and for its page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from colophon.pipeline.reports.comparison.columns import ComparedColumn
from colophon.pipeline.reports.comparison.comparison import Comparison
from colophon.pipeline.reports.comparison.documents import ChangedColumn
from colophon.pipeline.reports.comparison.layouts import LayoutCost
from colophon.pipeline.reports.comparison.settings import Change
from colophon.pipeline.reports.tables import print_table
from colophon.shards.common.url_secrets import without_secrets

_LONGEST_SETTING = 120
_MOST_PAIRS = 10
_MOST_EXAMPLES = 5


def print_comparison(found: Comparison, *, console: Console) -> None:
    """Print a comparison."""
    for line in headings(found):
        console.print(line, highlight=False, soft_wrap=True)
    for note in found.notes:
        console.print(note, style="yellow", highlight=False, soft_wrap=True)
    for table in (*setting_tables(found), column_table(found), *pair_tables(found, most=_MOST_PAIRS)):
        if table.row_count:
            print_table(table, console=console)
    for table in (*example_tables(found, most=_MOST_EXAMPLES), layout_table(found)):
        if table.row_count:
            print_table(table, console=console)


def headings(found: Comparison) -> Iterator[str]:
    """Yield the lines that name the runs and count their documents."""
    for name, path, counts in zip("AB", found.paths, found.counts, strict=True):
        documents = f"{counts['documents']:,} documents of {counts['files']:,} files"
        yield f"{name}: {path}: {documents}, {counts['text_bytes'] / 1e6:,.1f} MB of text, {counts['tokens']:,} tokens"
    matched = found.documents
    if matched is not None:
        repeated = f"; {sum(matched.repeated):,} rows repeat an id" if any(matched.repeated) else ""
        yield (
            f"documents in both runs: {matched.both:,}; in A alone: {matched.only_before:,}; "
            f"in B alone: {matched.only_after:,}{repeated}"
        )


def setting_tables(found: Comparison) -> Iterator[Table]:
    """Yield the tables of the settings that differ."""
    yield _settings("settings of the recipes that differ", found.changes.recipe)
    yield _settings("bins and thresholds that differ", found.changes.bins)
    yield _settings("models, versions and other settings of outputs that differ", found.changes.outputs)


def column_table(found: Comparison) -> Table:
    """The table of annotation columns: how far their distributions are apart, and the documents that changed."""
    table = Table(
        title="annotation columns",
        caption=(
            "TV: total variation distance of the two distributions, JS: their Jensen-Shannon divergence in bits, both "
            "from 0 to 1. changed: documents of both runs with a different value. mean |Δ|: of numbers"
        ),
    )
    table.add_column("column", overflow="fold")
    for heading in ("known A", "known B", "TV", "JS", "changed", "of both", "mean |Δ|"):
        table.add_column(heading, justify="right")
    changed = {} if found.documents is None else {one.name: one for one in found.documents.columns}
    for one in found.columns:
        table.add_row(one.name, *_column_cells(one, changed.get(one.name)))
    return table


def pair_tables(found: Comparison, *, most: int) -> Iterator[Table]:
    """Yield for each column of labels the pairs of values between which most documents moved."""
    for one in _changed(found):
        moved = [pair for pair in one.pairs if pair[0] != pair[1]]
        table = Table(title=f"{one.name}: {one.changed:,} documents changed")
        for heading in ("A", "B"):
            table.add_column(heading, overflow="fold")
        table.add_column("documents", justify="right")
        table.add_column("of both", justify="right")
        for before, after, n in moved[:most]:
            table.add_row(before, after, f"{n:,}", _share(n, one.documents))
        if len(moved) > most:
            table.caption = f"and {len(moved) - most:,} more pairs"
        yield table


def example_tables(found: Comparison, *, most: int) -> Iterator[Table]:
    """Yield for each column of labels some documents that changed."""
    for one in _changed(found):
        table = Table(title=f"{one.name}: some of the documents that changed")
        table.add_column("document", overflow="fold")
        for heading in ("A", "B"):
            table.add_column(heading, overflow="fold")
        for heading in ("score A", "score B"):
            table.add_column(heading, justify="right")
        for example in one.examples[:most]:
            name = example.id if example.url is None else without_secrets(example.url)
            scores = ("-" if s is None else f"{s:.4g}" for s in (example.score_before, example.score_after))
            table.add_row(name, example.before, example.after, *scores)
        yield table


def layout_table(found: Comparison) -> Table:
    """The table of layouts and their cost in tokens."""
    table = Table(
        title="tokens of layouts",
        caption="Δ: B against A. against plain: without padding, against the plain layout of the same run",
    )
    table.add_column("layout", overflow="fold")
    for heading in ("tokens A", "tokens B", "Δ"):
        table.add_column(heading, justify="right")
    for heading in ("utilisation A", "utilisation B", "against plain A", "against plain B"):
        table.add_column(heading, justify="right")
    for name, (before, after) in found.layouts.items():
        table.add_row(
            name,
            *(_cell(one, lambda cost: f"{cost.tokens:,}") for one in (before, after)),
            "-" if before is None or after is None else f"{after.tokens / max(before.tokens, 1) - 1:+.2%}",
            *(_cell(one, lambda cost: f"{cost.utilisation:.2%}") for one in (before, after)),
            *(_cell(one, _against_plain) for one in (before, after)),
        )
    return table


def _settings(title: str, changes: Sequence[Change]) -> Table:
    table = Table(title=title)
    for heading in ("key", "A", "B"):
        table.add_column(heading, overflow="fold")
    for change in changes:
        table.add_row(change.key, _setting(change.before), _setting(change.after))
    return table


def _setting(value: Any) -> str:
    """A setting as JSON: `-` for one that is missing; numbers with six digits."""
    if value is None:
        return "-"
    if isinstance(value, list) and all(isinstance(one, int | float) for one in value):
        return ", ".join(f"{one:.6g}" for one in value)
    text = without_secrets(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _LONGEST_SETTING else f"{text[: _LONGEST_SETTING - 1]}…"


def _column_cells(column: ComparedColumn, changed: ChangedColumn | None) -> Iterator[str]:
    for one in (column.before, column.after):
        yield "-" if one is None else _share(one.known, one.documents)
    for distance in (column.total_variation, column.divergence):
        yield "-" if distance is None else f"{distance:.3f}"
    yield "-" if changed is None else f"{changed.changed:,}"
    yield "-" if changed is None else _share(changed.changed, changed.documents)
    yield "-" if changed is None or changed.mean_change is None else f"{changed.mean_change:.3g}"


def _changed(found: Comparison) -> Iterator[ChangedColumn]:
    """Yield the columns of labels in which documents changed."""
    for one in () if found.documents is None else found.documents.columns:
        if one.examples:
            yield one


def _cell(cost: LayoutCost | None, shown: Callable[[LayoutCost], str]) -> str:
    return "-" if cost is None else shown(cost)


def _against_plain(cost: LayoutCost) -> str:
    return "-" if cost.against_plain is None else f"{cost.against_plain:+.2%}"


def _share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%}"
