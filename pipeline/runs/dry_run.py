"""`--dry-run`: the resolved recipe, the partitions, and what a run would do; writes and starts nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import Prepared
from colophon.pipeline.runs.run import describe

_SHOWN_PARTITIONS = 20


def print_plan(prepared: Prepared, *, stages: Sequence[str], console: Console) -> None:
    """Print the plan of the named stages."""
    plan = Plan(prepared)
    console.print_json(prepared.recipe.model_dump_json(exclude_none=True))
    partitions = prepared.inputs.partitions
    table = Table(title=f"{len(partitions):,} partitions", title_justify="left")
    for heading in ("partition", "source", "row groups", "documents", "MB"):
        table.add_column(heading, justify="left" if heading in ("partition", "source") else "right", overflow="fold")
    for p in partitions[:_SHOWN_PARTITIONS]:
        groups = "all" if p.row_groups is None else f"{p.row_groups[0]}-{p.row_groups[1] - 1}"
        table.add_row(p.name, p.source, groups, "?" if p.rows is None else f"{p.rows:,}", f"{p.bytes / 1e6:.1f}")
    console.print(table)
    if len(partitions) > _SHOWN_PARTITIONS:
        console.print(f"... and {len(partitions) - _SHOWN_PARTITIONS:,} more", highlight=False)
    for entry in prepared.inputs.quarantine:
        console.print(f"would be quarantined: {describe(entry)}", highlight=False, soft_wrap=True)
    for title in stages:
        tasks = plan.tasks([title], without={})
        todo = [task for task in tasks if task.outputs]
        files = sum(len(task.outputs) for task in todo)
        console.print(
            f"{title}: {files:,} files to make of {len(todo):,} partitions, {len(tasks) - len(todo):,} up to date",
            highlight=False,
        )
        for output, lines in plan.changed_settings(title).items():
            console.print(
                f"  {output}: made with other settings: {'; '.join(lines)} (needs --rebuild)", highlight=False
            )
