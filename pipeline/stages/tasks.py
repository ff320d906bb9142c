"""Tasks, their results, and the interface of a stage and its worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from colophon.pipeline.inputs.partitions import Partition
from colophon.shards.manifest import Record
from colophon.shards.outputs import Output


@dataclass(frozen=True, kw_only=True)
class Task:
    """One partition and the output files that are to be made of it."""

    partition: Partition
    outputs: Mapping[Output, str]
    """The fingerprint of each output."""
    upstream: Mapping[Output, Record] = field(default_factory=dict)
    """Committed files that the work reads, by output."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What a worker hands back: small, whatever the size of the partition."""

    records: tuple[Record, ...]
    documents: int
    text_bytes: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time by step of `pipeline.stages.timing.STEPS`. Steps overlap: their sum exceeds the time that passed."""
    notes: tuple[str, ...] = ()
    """What a person should know of how the worker works; a run shows each line once."""


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
