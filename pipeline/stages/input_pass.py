"""One pass over the input: each batch is read once and given to annotate and tokenize.

A thread reads batches ahead and a second writes results behind, see `pipeline.concurrency`.
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
from colophon.pipeline.stages.token_ids import TokenEncoding, TokenSource
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.fault_injection import reached
from colophon.pipeline.storage.publication import Finished


class Sink(Protocol):
    """One stage's work on one partition."""

    @property
    def needs(self) -> Sequence[ColumnNeed]:
        """The input columns that the stage reads."""
        ...

    @property
    def reads_ids(self) -> bool:
        """Whether `take` needs the column `input_ids` besides those of the input."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """See `TaskResult.notes`."""
        ...

    def take(self, batch: pa.RecordBatch, *, first_row: int, clock: Clock, later: WriteBehind) -> None:
        """Work on the next batch, which begins at that row of the partition, and queue the result with `later`."""
        ...

    def finish(self, reader: PartitionReader, *, rows: int) -> tuple[Finished, ...]:
        """Close and check the files, after the last batch was written."""
        ...


class InputWorker(Protocol):
    """Holds a stage's models in one process."""

    def open(self, task: Task, *, tokens: TokenSource, clock: Clock, stack: ExitStack) -> Sink | None:
        """Begin the files that the task wants of this stage, closed by `stack`; None if it wants none."""
        ...


class InputStage(Protocol):
    """A stage that reads the input: annotate, tokenize."""

    @property
    def name(self) -> str:
        """The stage's name in progress and summaries."""
        ...

    def start(self) -> InputWorker:
        """A worker; models are loaded when a task first needs them."""
        ...


@dataclass(frozen=True)
class InputPass:
    """The stages that read the input, as one."""

    store: Store
    stages: tuple[InputStage, ...]
    encoding: TokenEncoding | None = None
    """How texts become ids, if a stage or an annotator reads them."""

    @property
    def name(self) -> str:
        """The stage's name in progress and summaries."""
        return ", ".join(stage.name for stage in self.stages)

    def start(self) -> InputPassWorker:
        """A worker of each stage."""
        tokens = TokenSource(self.store, self.encoding)
        return InputPassWorker(self.name, self.store, [stage.start() for stage in self.stages], tokens)


class InputPassWorker:
    """Reads partitions and gives their batches to the workers of the stages."""

    def __init__(self, name: str, store: Store, workers: Sequence[InputWorker], tokens: TokenSource) -> None:
        self._name = name
        self._store = store
        self._workers = workers
        self._tokens = tokens

    def work(self, task: Task) -> TaskResult:
        """Read one partition, give its batches to every sink, and publish their files together."""
        clock = Clock()
        rows = 0
        with ExitStack() as stack:
            opened = [worker.open(task, tokens=self._tokens, clock=clock, stack=stack) for worker in self._workers]
            sinks = [sink for sink in opened if sink is not None]
            reads_ids = any(sink.reads_ids for sink in sinks)
            with_ids = self._tokens.ids_of(task, clock=clock, stack=stack) if reads_ids else None
            reader = PartitionReader(task.partition, _needs(sinks), stage=self._name)
            with (
                closing(read_ahead(clock.each("read", reader))) as batches,
                WriteBehind() as later,
            ):
                for read in batches:
                    batch = read if with_ids is None else with_ids(read, rows)
                    for sink in sinks:
                        sink.take(batch, first_row=rows, clock=clock, later=later)
                    reached("mid-write", self._name)
                    rows += batch.num_rows
            with clock.measure("write"):
                files = [file for sink in sinks for file in sink.finish(reader, rows=rows)]
                records = self._store.publish(files, replaces=task.replaces)
        return TaskResult(
            records=records,
            documents=rows,
            text_bytes=reader.text_bytes,
            seconds=clock.seconds,
            notes=tuple(note for sink in sinks for note in sink.notes),
        )


def _needs(sinks: Sequence[Sink]) -> list[ColumnNeed]:
    """Each column once; required if one sink requires it."""
    needs: dict[str, ColumnNeed] = {}
    for need in (need for sink in sinks for need in sink.needs):
        if need.required or need.name not in needs:
            needs[need.name] = need
    return list(needs.values())
