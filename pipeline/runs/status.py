"""`colophon status`: the state of each output. Reads commit records and starts nothing.

On a disk a file is done that exists under its recorded name. A run also compares its size, which takes most of the time
that a listing of a million files does, and `colophon verify` its content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from colophon.pipeline.errors import printable
from colophon.pipeline.reports.tables import print_table
from colophon.pipeline.runs.plan import Plan, each_once
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.runs.run import describe
from colophon.pipeline.storage.commits import QUARANTINE
from colophon.pipeline.storage.lock import owners_of
from colophon.pipeline.storage.owner import Owner
from colophon.pipeline.storage.shard import Shard
from colophon.pipeline.verification.settings_and_models import settings_findings
from colophon.shards.common.errors import DamagedFileError, ShardError
from colophon.shards.outputs import STAGES, Output
from colophon.shards.records import QuarantineEntry, parse_quarantine

_SHOWN_ENTRIES = 10
_STATES = ("done", "stale", "running", "quarantined", "missing")


@dataclass(frozen=True, kw_only=True)
class OutputStatus:
    """The number of partitions of one output in each state. Each partition is counted once."""

    output: str
    done: int
    stale: int
    """Written with other settings or from other input; the next run rebuilds them."""
    running: int
    """Being written now; always 0 on object stores."""
    quarantined: int
    missing: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a run's output."""

    partitions: int
    owner: Owner | None
    """The run that holds the lock now."""
    shards: Mapping[Shard, Owner]
    """The shards that are at work now."""
    outputs: tuple[OutputStatus, ...]
    quarantine: tuple[QuarantineEntry, ...]
    """Entries of the last run that ended, and input files that cannot be read now."""
    warnings: tuple[str, ...] = ()
    """Stored settings and a manifest that are missing, damaged or different from each other."""

    def as_dict(self) -> dict[str, Any]:
        """The status as a JSON value."""
        return {
            "partitions": self.partitions,
            "running": None if self.owner is None else _as_dict(self.owner),
            "running_shards": {str(shard): _as_dict(owner) for shard, owner in self.shards.items()},
            "outputs": {status.output: _by_state(status) for status in self.outputs},
            "quarantine": [entry.model_dump(exclude_none=True) for entry in self.quarantine],
            "warnings": list(self.warnings),
        }


def _as_dict(owner: Owner) -> dict[str, Any]:
    return owner.model_dump(include={"host", "pid", "since"})


def status_of(resolved: ResolvedRecipe) -> Status:
    """The state of every output of the recipe, from its commit records, the names of its files, and the input now."""
    plan = Plan(resolved, names_alone=True)
    stages = [stage for stage in STAGES if stage == "annotate" or resolved.recipe.tokenizer is not None]
    owners = owners_of(resolved.store)
    quarantine = (*resolved.inputs.quarantine, *_last_quarantine(resolved))
    quarantined = {entry.partition for entry in quarantine if entry.line is None and entry.partition is not None}
    outputs = [output for stage in stages for output in plan.outputs(stage)]
    return Status(
        partitions=len(resolved.inputs.partitions),
        owner=owners.get(None),
        shards={shard: owner for shard, owner in owners.items() if shard is not None},
        outputs=tuple(
            _output_status(plan, output, is_running=bool(owners), quarantined=quarantined) for output in outputs
        ),
        quarantine=tuple(each_once(quarantine)),
        warnings=_warnings(resolved),
    )


def _warnings(resolved: ResolvedRecipe) -> tuple[str, ...]:
    try:
        manifest = resolved.manifest()
    except ShardError as error:
        return (str(error),)
    if manifest is None:
        return ()
    return tuple(f"{resolved.store.root}/{f.path}: {f.message}" for f in settings_findings(resolved.store, manifest))


def _output_status(plan: Plan, output: Output, *, is_running: bool, quarantined: set[str]) -> OutputStatus:
    store, state = plan.resolved.store, plan.state(output)
    drafts = store.drafts(output) if is_running else set()
    counts = {**dict.fromkeys(_STATES, 0), "done": int(state.is_done.sum())}
    numbers = np.flatnonzero(~state.is_done)
    names = plan.resolved.inputs.partitions.names.take(pa.array(numbers)).to_pylist()
    for number, name in zip(numbers.tolist(), names, strict=True):
        if name in drafts:
            counts["running"] += 1
        elif name in quarantined:
            counts["quarantined"] += 1
        else:
            counts["stale" if state.has_record[number] else "missing"] += 1
    return OutputStatus(output=output, **counts)


def _last_quarantine(resolved: ResolvedRecipe) -> list[QuarantineEntry]:
    try:
        return parse_quarantine(resolved.store.files.read_bytes(QUARANTINE) or b"", where=QUARANTINE)
    except DamagedFileError:  # another version of Colophon wrote it
        return []


def print_status(status: Status, *, console: Console) -> None:
    """Print a table of the outputs, and the quarantine."""
    if status.owner is not None:
        console.print(f"running: {status.owner.describe()}", highlight=False)
    for shard, owner in sorted(status.shards.items())[:_SHOWN_ENTRIES]:
        console.print(f"running: shard {shard}, {owner.describe()}", highlight=False)
    if len(status.shards) > _SHOWN_ENTRIES:
        console.print(f"... and {len(status.shards) - _SHOWN_ENTRIES} more shards", highlight=False)
    table = Table(title=f"{status.partitions:,} partitions")
    table.add_column("output", overflow="fold")
    for state in _STATES:
        table.add_column(state, justify="right")
    for output in status.outputs:
        counts = _by_state(output)
        table.add_row(output.output, *(f"{number:,}" if number else "-" for number in counts.values()))
    print_table(table, console=console)
    for warning in status.warnings:
        console.print(printable(warning), highlight=False, soft_wrap=True)
    for entry in status.quarantine[:_SHOWN_ENTRIES]:
        console.print(f"quarantined: {describe(entry)}", highlight=False, soft_wrap=True)
    if len(status.quarantine) > _SHOWN_ENTRIES:
        console.print(f"... and {len(status.quarantine) - _SHOWN_ENTRIES} more in {QUARANTINE}", highlight=False)


def _by_state(status: OutputStatus) -> dict[str, int]:
    return {state: getattr(status, state) for state in _STATES}
