"""`colophon status`: what of a recipe is done, without starting anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from colophon.pipeline.runs.plan import TITLES, Plan
from colophon.pipeline.runs.resolve import Prepared
from colophon.pipeline.runs.run import QUARANTINE, describe
from colophon.pipeline.storage.lock import Owner, owner_of
from colophon.shards.manifest import QuarantineEntry
from colophon.shards.outputs import Output

_SHOWN_ENTRIES = 10
_STATES = ("done", "stale", "running", "quarantined", "missing")


@dataclass(frozen=True, kw_only=True)
class OutputStatus:
    """How many partitions of one output, `annotations/<annotator>`, `tokens` or `packed/<layout>`, are in which state.

    Each partition is counted once.
    """

    output: str
    done: int
    stale: int
    """Made with other settings or from other input; the next run makes them anew."""
    running: int
    """Being made now; told for local directories."""
    quarantined: int
    missing: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a run's output."""

    partitions: int
    owner: Owner | None
    """The run that works there now."""
    outputs: tuple[OutputStatus, ...]
    quarantine: tuple[QuarantineEntry, ...]
    """Of the last run that ended, and input files that cannot be read now."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "partitions": self.partitions,
            "running": None if self.owner is None else self.owner.model_dump(include={"host", "pid", "since"}),
            "outputs": {status.output: _by_state(status) for status in self.outputs},
            "quarantine": [entry.model_dump(exclude_none=True) for entry in self.quarantine],
        }


def status_of(prepared: Prepared) -> Status:
    """Look at the records of everything that the recipe asks for."""
    plan, store = Plan(prepared), prepared.store
    titles = [title for title in TITLES if title == "annotate" or prepared.recipe.tokenizer is not None]
    owner = owner_of(store)
    quarantine = (*prepared.inputs.quarantine, *_kept_quarantine(prepared))
    left_out = {entry.partition for entry in quarantine if entry.line is None and entry.partition is not None}
    outputs = [output for title in titles for output in plan.outputs(title)]
    return Status(
        partitions=len(prepared.inputs.partitions),
        owner=owner,
        outputs=tuple(_output_status(plan, output, is_running=owner is not None, out=left_out) for output in outputs),
        quarantine=tuple({(e.source, e.partition, e.line): e for e in quarantine}.values()),
    )


def _output_status(plan: Plan, output: Output, *, is_running: bool, out: set[str]) -> OutputStatus:
    store = plan.prepared.store
    recorded = store.recorded(output)
    drafts = store.drafts(output) if is_running else set()
    counts = dict.fromkeys(_STATES, 0)
    for partition in plan.prepared.inputs.partitions:
        if partition.name in recorded and plan.record(output, partition) is not None:
            state = "done"
        elif partition.name in drafts:
            state = "running"
        elif partition.name in out:
            state = "quarantined"
        else:
            state = "stale" if partition.name in recorded else "missing"
        counts[state] += 1
    return OutputStatus(output=output, **counts)


def _kept_quarantine(prepared: Prepared) -> list[QuarantineEntry]:
    lines = (prepared.store.read_text(QUARANTINE) or "").split("\n")  # a reason may hold other line ends
    try:
        return [QuarantineEntry.model_validate_json(line) for line in lines if line]
    except ValidationError:  # another version of Colophon wrote it
        return []


def print_status(status: Status, *, console: Console) -> None:
    """A table of the outputs, and what is left out."""
    if status.owner is not None:
        console.print(f"running: {status.owner.describe()}", highlight=False)
    table = Table(title=f"{status.partitions:,} partitions", title_justify="left")
    table.add_column("output", overflow="fold")
    for state in _STATES:
        table.add_column(state, justify="right")
    for output in status.outputs:
        counts = _by_state(output)
        table.add_row(output.output, *(f"{number:,}" if number else "-" for number in counts.values()))
    console.print(table)
    for entry in status.quarantine[:_SHOWN_ENTRIES]:
        console.print(f"quarantined: {describe(entry)}", highlight=False, soft_wrap=True)
    if len(status.quarantine) > _SHOWN_ENTRIES:
        console.print(f"... and {len(status.quarantine) - _SHOWN_ENTRIES} more in {QUARANTINE}", highlight=False)


def _by_state(status: OutputStatus) -> dict[str, int]:
    return {state: getattr(status, state) for state in _STATES}
