"""What every stage is: a map over partitions, with one output file and one commit record for each.

A stage is a small picklable description; in a worker process it starts a worker, which holds the stage's models and
turns tasks into records. How workers are run is the executor's business alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from annotators.base import AnnotatorError
from pipeline.errors import InputError
from pipeline.inputs import Partition
from pipeline.transient import is_transient, retried
from shards.manifest import Record
from shards.schema import ShardError


@dataclass(frozen=True, kw_only=True)
class Task:
    """One partition and the output files that are to be made of it."""

    partition: Partition
    outputs: Mapping[str, str]
    """The fingerprint of each output by its stage (`annotations/url`, `tokens`, `packed/plain`)."""
    upstream: Mapping[str, Record] = field(default_factory=dict)
    """Committed files that the work reads, by their stage."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What a worker hands back: small, whatever the size of the partition."""

    records: tuple[Record, ...]
    documents: int
    text_bytes: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    """What it took by step, see `pipeline.flow.STEPS`; steps overlap, so that their sum exceeds the time gone by."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A task that was worked on, or the reason why its partition cannot be."""

    task: Task
    result: TaskResult | None = None
    error: str | None = None


class Worker(Protocol):
    """Holds a stage's models in one process."""

    def work(self, task: Task) -> TaskResult:
        """Make and commit the task's outputs.

        Raises:
            InputError: the partition cannot be read; nothing of it was committed.
        """
        ...


class Stage(Protocol):
    """What an executor sends to its processes."""

    @property
    def title(self) -> str:
        """The stage's name for people."""
        ...

    def start(self) -> Worker:
        """Load what the stage needs, once a process."""
        ...


class Executor(Protocol):
    """Runs tasks somewhere."""

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Outcomes as they come; every task has exactly one."""
        ...


def attempt(worker: Worker, task: Task) -> Outcome:
    """Work on a task: what the network did is tried again with pauses, what the input is becomes an outcome.

    Raises:
        Exception: anything else is a defect or a full disk, and ends the run.
    """
    try:
        return Outcome(task=task, result=retried(lambda: worker.work(task)))
    except (InputError, AnnotatorError, ShardError) as error:
        return Outcome(task=task, error=str(error))
    except Exception as error:
        if not is_transient(error):
            raise
        return Outcome(task=task, error=f"{type(error).__name__}: {error} (tried again, in vain)")


class InlineExecutor:
    """Works on tasks one after the other in this process, without Ray."""

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Outcomes in the tasks' order."""
        if not tasks:
            return
        worker = stage.start()
        for task in tasks:
            yield attempt(worker, task)
