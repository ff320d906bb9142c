"""One pass over the input: each batch is read once and handed to every stage that makes something of it.

Batches are read ahead and results written behind, each on a thread of its own, see `pipeline.concurrency`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from colophon.pipeline.concurrency import WriteBehind, read_ahead
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.stages.tasks import Task, TaskResult
from colophon.pipeline.stages.timing import Clock
from colophon.pipeline.storage.fault_injection import reached
from colophon.shards.manifest import Record


class Sink(Protocol):
    """What one stage makes of one partition."""

    @property
    def needs(self) -> Sequence[ColumnNeed]:
        """The input columns that it reads."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """See `TaskResult.notes`."""
        ...

    def take(self, batch: pa.RecordBatch, *, first_row: int, clock: Clock, later: WriteBehind) -> None:
        """Work on the next batch, whose first row is that row of the partition, and have the result written."""
        ...

    def commit(self, reader: PartitionReader, *, rows: int) -> tuple[Record, ...]:
        """Close the files and make them visible, after the last batch was written."""
        ...


class InputWorker(Protocol):
    """Holds a stage's models in one process."""

    def open(self, task: Task, *, clock: Clock, stack: ExitStack) -> Sink | None:
        """Begin the files that the task wants of this stage, to be left with `stack`; None if there are none."""
        ...


class InputStage(Protocol):
    """A stage that reads the input: annotate, tokenize."""

    @property
    def title(self) -> str:
        """For progress and summaries."""
        ...

    def start(self) -> InputWorker:
        """A worker; models are loaded when a task first needs them."""
        ...


@dataclass(frozen=True)
class InputPass:
    """Some stages that read the input, as one."""

    stages: tuple[InputStage, ...]

    @property
    def title(self) -> str:
        """For progress and summaries."""
        return ", ".join(stage.title for stage in self.stages)

    def start(self) -> InputPassWorker:
        """A worker of each stage."""
        return InputPassWorker(self.title, [stage.start() for stage in self.stages])


class InputPassWorker:
    """Reads partitions and hands their batches on."""

    def __init__(self, title: str, workers: Sequence[InputWorker]) -> None:
        self._title = title
        self._workers = workers

    def work(self, task: Task) -> TaskResult:
        """Read one partition, have all of its outputs made, and commit them."""
        clock = Clock()
        rows = 0
        with ExitStack() as stack:
            opened = [worker.open(task, clock=clock, stack=stack) for worker in self._workers]
            sinks = [sink for sink in opened if sink is not None]
            reader = PartitionReader(task.partition, _needs(sinks), stage=self._title)
            with (
                closing(read_ahead(clock.each("read", reader))) as batches,
                WriteBehind() as later,
            ):
                for batch in batches:
                    for sink in sinks:
                        sink.take(batch, first_row=rows, clock=clock, later=later)
                    reached("mid-write", self._title)
                    rows += batch.num_rows
            with clock.measure("write"):
                records = tuple(record for sink in sinks for record in sink.commit(reader, rows=rows))
        return TaskResult(
            records=records,
            documents=rows,
            text_bytes=reader.text_bytes,
            seconds=clock.seconds,
            notes=tuple(note for sink in sinks for note in sink.notes),
        )


def _needs(sinks: Sequence[Sink]) -> list[ColumnNeed]:
    """Every column once; one that any of them requires is required."""
    needs: dict[str, ColumnNeed] = {}
    for need in (need for sink in sinks for need in sink.needs):
        if need.required or need.name not in needs:
            needs[need.name] = need
    return list(needs.values())
