"""`--dry-run`: the resolved recipe, the partitions, and what a run would do. Writes and starts nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.found_columns import found_columns
from colophon.pipeline.inputs.partitions import Partition
from colophon.pipeline.inputs.search.found import describe_left_aside, shown
from colophon.pipeline.retry import retried_for
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.runs.run import describe
from colophon.shards.outputs import STAGES

_SHOWN_PARTITIONS = 20
_SHOWN_COLUMNS = 40


def print_plan(resolved: ResolvedRecipe, *, stages: Sequence[str], console: Console) -> None:
    """Print the recipe, its partitions, and the plan of the named stages."""
    console.print_json(resolved.recipe.model_dump_json(exclude_none=True))
    partitions = resolved.inputs.partitions
    console.print(_partition_table(partitions))
    if len(partitions) > _SHOWN_PARTITIONS:
        console.print(f"... and {len(partitions) - _SHOWN_PARTITIONS:,} more", highlight=False)
    if partitions:
        console.print(_column_table(resolved, partitions[0]))
    for entry in resolved.inputs.quarantine:
        console.print(f"would be quarantined: {describe(entry)}", highlight=False, soft_wrap=True)
    for line in describe_left_aside(resolved.inputs.left_aside):
        console.print(f"left aside: {line}", highlight=False, soft_wrap=True)
    plan = Plan(resolved)
    for stage in (stage for stage in STAGES if stage in stages):
        tasks = plan.tasks([stage], without={})
        stale = [task for task in tasks if task.outputs]
        files = sum(len(task.outputs) for task in stale)
        console.print(
            f"{stage}: {files:,} files to write for {len(stale):,} partitions, {len(tasks) - len(stale):,} up to date",
            highlight=False,
        )
        for output, lines in plan.changed_settings(stage).items():
            console.print(
                f"  {output}: written with other settings: {'; '.join(lines)} (needs --rebuild)", highlight=False
            )


def _column_table(resolved: ResolvedRecipe, first: Partition) -> Table | str:
    """The columns at the start of the first file, and what the recipe reads them as."""
    try:
        found = retried_for(first.source, lambda: found_columns(first))
    except InputError as error:
        return f"{shown(first.source)}: {error}"
    columns = resolved.columns
    needs = {need.name: need for need in (*columns.annotate_needs, *columns.tokenize_needs)}
    read = {c.name: [need.name for need in needs.values() if need.in_input == c.name] for c in found}
    rows = max((column.rows for column in found), default=0)
    title = f"columns in the first {rows:,} documents of {shown(first.source)}"
    table = Table(title=title, title_justify="left")
    for heading in ("column", "type", "null or empty", "read as"):
        table.add_column(heading, justify="right" if heading == "null or empty" else "left", overflow="fold")
    for column in found[:_SHOWN_COLUMNS]:
        missing = f"{column.missing / max(column.rows, 1):.1%}"
        table.add_row(shown(column.name), shown(column.type), missing, shown(", ".join(read[column.name])))
    if len(found) > _SHOWN_COLUMNS:
        table.add_row(f"... and {len(found) - _SHOWN_COLUMNS:,} more", "", "", "")
    return table


def _partition_table(partitions: Sequence[Partition]) -> Table:
    table = Table(title=f"{len(partitions):,} partitions", title_justify="left")
    for heading in ("partition", "source", "row groups", "documents", "MB"):
        table.add_column(heading, justify="left" if heading in ("partition", "source") else "right", overflow="fold")
    for p in partitions[:_SHOWN_PARTITIONS]:
        groups = "all" if p.row_groups is None else f"{p.row_groups[0]}-{p.row_groups[1] - 1}"
        table.add_row(p.name, shown(p.source), groups, "?" if p.rows is None else f"{p.rows:,}", f"{p.bytes / 1e6:.1f}")
    return table
