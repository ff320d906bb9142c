"""`--dry-run`: the partitions, what a run would do and cost, and the resolved recipe. Writes and starts nothing.

The probe of an estimate works in a temporary directory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from colophon.annotators.remote import RequestsEstimate
from colophon.pipeline.errors import InputError, one_line
from colophon.pipeline.estimates.estimate import Estimate, estimate, size_text
from colophon.pipeline.inputs.found_columns import FoundColumn, found_columns
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.search.found import describe_left_aside, shown
from colophon.pipeline.reports.tables import print_table
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.progress import duration
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.runs.run import describe
from colophon.shards.common.errors import ColophonError
from colophon.shards.outputs import STAGES
from colophon.shards.stores.retry import retried_for

_SHOWN_PARTITIONS = 20
_SHOWN_COLUMNS = 40


@dataclass(frozen=True)
class StagePlan:
    """The work of one stage."""

    name: str
    files: int
    """Files to write."""
    partitions: int
    """Partitions with files to write."""
    up_to_date: int
    changed_settings: dict[str, list[str]]
    """By output, how its settings differ from those that its files were written with; they need --rebuild."""


@dataclass(frozen=True)
class SourceColumns:
    """The columns at the start of the first file of a source."""

    source: str | None
    """The source's name."""
    file: str
    columns: tuple[FoundColumn, ...]


@dataclass(frozen=True)
class DryRun:
    """The work of a run that is not started."""

    resolved: ResolvedRecipe
    stages: tuple[StagePlan, ...]
    columns: tuple[SourceColumns, ...]
    """The columns at the start of the first file of each source."""
    estimate: Estimate | None
    no_estimate: str = ""
    """Why there is no estimate."""

    def as_dict(self) -> dict[str, Any]:
        """The plan as a JSON value."""
        inputs = self.resolved.inputs
        return {
            "partitions": [
                {
                    "name": p.name,
                    "source": p.source,
                    "row_groups": p.row_groups,
                    "first_byte": None if p.piece is None else p.piece.content_begin,
                    "documents": p.rows,
                    "bytes": p.bytes,
                }
                for p in inputs.partitions
            ],
            "columns": [
                {**asdict(c), "read_as": read_as[c.name]} | ({} if of.source is None else {"source_name": of.source})
                for of in self.columns
                for read_as in [_read_as(self.resolved, of.source)]
                for c in of.columns
            ],
            "quarantine": [entry.model_dump(exclude_none=True) for entry in inputs.quarantine],
            "left_aside": [one.model_dump() for one in inputs.left_aside],
            "partition_bytes_chosen": dict(inputs.chosen_bytes),
            "notes": list(inputs.notes),
            "stages": {
                stage.name: {
                    "files": stage.files,
                    "partitions": stage.partitions,
                    "up_to_date": stage.up_to_date,
                    "changed_settings": stage.changed_settings,
                }
                for stage in self.stages
            },
            "estimate": None if self.estimate is None else self.estimate.as_dict(),
            "no_estimate": self.no_estimate or None,
            "recipe": self.resolved.recipe.model_dump(mode="json", exclude_none=True),
        }


def dry_run(resolved: ResolvedRecipe, *, stages: Sequence[str], may_probe: bool = True) -> DryRun:
    """Plan the named stages and estimate them; a probe that fails leaves the plan without an estimate."""
    plan = Plan(resolved)
    planned = tuple(_stage_plan(plan, stage) for stage in STAGES if stage in stages)
    columns = tuple(_columns(resolved))
    try:
        return DryRun(resolved, planned, columns, estimate(plan, stages, may_probe=may_probe))
    except ColophonError as error:
        return DryRun(resolved, planned, columns, None, no_estimate=one_line(error))


def _stage_plan(plan: Plan, stage: Any) -> StagePlan:
    tasks = plan.tasks([stage], without=())
    return StagePlan(
        name=stage,
        files=sum(len(task.outputs) for task in tasks),
        partitions=len(tasks),
        up_to_date=len(plan.resolved.inputs.partitions) - len(tasks),
        changed_settings={str(output): lines for output, lines in plan.changed_settings(stage).items()},
    )


def print_dry_run(plan: DryRun, *, console: Console) -> None:
    """Print the partitions, the work, the estimate, and the recipe."""
    inputs = plan.resolved.inputs
    print_table(_partition_table(inputs.partitions), console=console)
    if len(inputs.partitions) > _SHOWN_PARTITIONS:
        console.print(f"... and {len(inputs.partitions) - _SHOWN_PARTITIONS:,} more", highlight=False)
    for found in plan.columns:
        print_table(_column_table(plan, found), console=console)
        if len(found.columns) > _SHOWN_COLUMNS:
            console.print(f"... and {len(found.columns) - _SHOWN_COLUMNS:,} more columns", highlight=False)
    for entry in inputs.quarantine:
        console.print(f"would be quarantined: {describe(entry)}", highlight=False, soft_wrap=True)
    for line in describe_left_aside(inputs.left_aside):
        console.print(f"left aside: {line}", highlight=False, soft_wrap=True)
    for line in inputs.notes:
        console.print(line, highlight=False, soft_wrap=True)
    for stage in plan.stages:
        console.print(
            f"{stage.name}: {stage.files:,} files to write for {stage.partitions:,} partitions, "
            f"{stage.up_to_date:,} up to date",
            highlight=False,
        )
        for output, lines in stage.changed_settings.items():
            console.print(
                f"  {output}: written with other settings: {'; '.join(lines)} (needs --rebuild)",
                highlight=False,
                soft_wrap=True,
            )
    if plan.estimate is not None:
        _print_estimate(plan.estimate, console=console)
    elif plan.no_estimate:
        console.print(f"no estimate: {plan.no_estimate}", highlight=False, soft_wrap=True)
    console.print("recipe:", style="bold")
    console.print_json(plan.resolved.recipe.model_dump_json(exclude_none=True))


def _print_estimate(found: Estimate, *, console: Console) -> None:
    working = [one for one in found.passes if one.partitions]
    if not working:
        console.print("nothing to do: everything is up to date", highlight=False)
        return
    for one in working:
        if one.seconds is None:
            console.print(f"estimate of {one.name}: none, no earlier run on this machine", highlight=False)
            continue
        console.print(
            f"estimate of {one.name}: about {duration(one.seconds)} with {found.workers} workers, "
            f"{one.documents:,} documents, {size_text(one.text_bytes or 0)} of text (from {one.source})",
            highlight=False,
            soft_wrap=True,
        )
    for request in found.requests:
        console.print(_requests_line(request), highlight=False, soft_wrap=True)
    if found.written_bytes:
        print_table(_disk_table(found), console=console)
    measured = "measured" if found.is_worker_measured else "typical"
    console.print(
        f"memory: {found.workers} workers of {size_text(found.worker_bytes)} ({measured}) and "
        f"{size_text(found.model_bytes)} of models: {size_text(found.memory_bytes)}; "
        f"{size_text(found.available_bytes)} are available",
        highlight=False,
        soft_wrap=True,
    )
    for line in found.warnings:
        console.print(line, style="yellow", highlight=False, soft_wrap=True)


def _requests_line(found: RequestsEstimate) -> str:
    price = "" if found.price is None else f", price {found.price:,.2f}"
    return (
        f"annotators.{found.annotator}: at most about {found.requests:,} requests to {found.endpoint}, "
        f"{found.prompt_tokens:,} + {found.output_tokens:,} tokens, {duration(found.seconds)} of waiting{price} "
        f"({found.source})"
    )


def _disk_table(found: Estimate) -> Table:
    free = "" if found.free_bytes is None else f"; {size_text(found.free_bytes)} are free"
    table = Table(title=f"disk: about {size_text(found.total_bytes)} will be written{free}")
    table.add_column("output", overflow="fold")
    table.add_column("MB", justify="right")
    for output, size in found.written_bytes.items():
        table.add_row(output, f"{size / 1e6:,.1f}")
    return table


def _columns(resolved: ResolvedRecipe) -> Iterator[SourceColumns]:
    """The columns at the start of the first file of each source that can be read and has any."""
    firsts: dict[str | None, Partition] = {}
    for partition in resolved.inputs.partitions:
        firsts.setdefault(partition.source_name, partition)
    for name, first in firsts.items():
        try:
            columns = retried_for(first.source, partial(found_columns, first))
        except InputError:
            continue
        if columns:
            yield SourceColumns(name, first.source, tuple(columns))


def _read_as(resolved: ResolvedRecipe, source: str | None) -> Mapping[str, list[str]]:
    """By column of a source, the names under which the recipe reads it; an empty list for the others."""
    names: dict[str, list[str]] = defaultdict(list)
    for need in (need.in_source(source) for need in resolved.columns.needs.values()):
        if not need.is_name_of(source):
            names[need.in_input].append(need.name)
    return names


def _column_table(plan: DryRun, found: SourceColumns) -> Table:
    """The columns at the start of the first file of a source, and what the recipe reads them as."""
    rows, read_as = max(column.rows for column in found.columns), _read_as(plan.resolved, found.source)
    of_source = "" if found.source is None else f" ({shown(found.source)})"
    table = Table(title=f"columns in the first {rows:,} documents of {shown(found.file)}{of_source}")
    for heading in ("column", "type"):
        table.add_column(heading, overflow="fold")
    table.add_column("null or empty", justify="right")
    table.add_column("read as", overflow="fold")
    for column in found.columns[:_SHOWN_COLUMNS]:
        missing = f"{column.missing / max(column.rows, 1):.1%}"
        table.add_row(shown(column.name), shown(column.type), missing, shown(", ".join(read_as[column.name])))
    return table


def _part(partition: Partition) -> str:
    """The part of the file that a partition is: `all`, `row groups 0-7`, `lines from byte 67,108,864`."""
    if partition.row_groups is not None:
        first, end = partition.row_groups
        return f"row groups {first}-{end - 1}"
    return "all" if partition.piece is None else f"lines from byte {partition.piece.content_begin:,}"


def _partition_table(partitions: Sequence[Partition]) -> Table:
    table = Table(title=f"{len(partitions):,} partitions")
    for heading in ("partition", "source"):
        table.add_column(heading, overflow="fold")
    for heading in ("part", "documents", "MB"):
        table.add_column(heading, justify="right")
    for p in partitions[:_SHOWN_PARTITIONS]:
        table.add_row(
            p.name, shown(p.source), _part(p), "?" if p.rows is None else f"{p.rows:,}", f"{p.bytes / 1e6:.1f}"
        )
    return table
