"""Tasks, their results, and the interface of a stage and its worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from colophon.pipeline.inputs.partitions import Partition
from colophon.shards.outputs import Output
from colophon.shards.records import Record


@dataclass(frozen=True, kw_only=True)
class Task:
    """One partition and the output files to make from it."""

    partition: Partition
    outputs: Mapping[Output, str]
    """The fingerprint of each file."""
    upstream: Mapping[Output, Record] = field(default_factory=dict)
    """The committed files that the work reads."""
    replaces: bool = False
    """Whether older files of the outputs were committed; see `Store.publish`."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """A worker's result: small, whatever the size of the partition."""

    records: tuple[Record, ...]
    documents: int
    text_bytes: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time by step of `pipeline.stages.timing.STEPS`. Steps overlap: their sum exceeds the time that passed."""
    notes: tuple[str, ...] = ()
    """Lines about how the worker runs, such as the engine of its tokenizer; a run shows each line once."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a task: a result, or the reason why its partition is quarantined."""

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
    """The description of a stage that an executor sends to its processes."""

    @property
    def name(self) -> str:
        """The stage's name in progress and summaries."""
        ...

    def start(self) -> Worker:
        """A worker, called once a process. It may load models now or at its first task."""
        ...
