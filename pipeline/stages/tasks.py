"""Tasks, their results, and the interface of a stage and its worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, overload

import numpy as np

from colophon.pipeline.inputs.partition_table import Partition
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.outputs import Output
from colophon.shards.records import Record

_BUILT_AT_ONCE = 256


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


class Tasks(Sequence[Task]):
    """The tasks of a pass, each built when it is asked for: a million that wait take some megabytes."""

    def __init__(self, sizes: NumPyArray, build: Callable[[NumPyArray], list[Task]]) -> None:
        """Describe tasks of different partitions.

        Args:
            sizes: int64 [tasks]: `Partition.bytes` of each.
            build: returns the tasks with these numbers, int64 [any].
        """
        self.sizes = sizes
        self._build = build

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Tasks:
        """These tasks; themselves if they are `Tasks`.

        Raises:
            ValueError: two have the same partition.
        """
        if isinstance(tasks, Tasks):
            return tasks
        if len({task.partition.name for task in tasks}) < len(tasks):
            raise ValueError("two tasks of a stage have the same partition")
        sizes = np.array([task.partition.bytes for task in tasks], np.int64)
        return cls(sizes, lambda numbers: [tasks[number] for number in numbers.tolist()])

    def in_order(self, numbers: NumPyArray) -> Iterator[Task]:
        """The tasks with these numbers, built some at a time."""
        for start in range(0, len(numbers), _BUILT_AT_ONCE):
            yield from self._build(numbers[start : start + _BUILT_AT_ONCE])

    def __iter__(self) -> Iterator[Task]:
        return self.in_order(np.arange(len(self)))

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, number: int) -> Task: ...

    @overload
    def __getitem__(self, number: slice) -> list[Task]: ...

    def __getitem__(self, number: int | slice) -> Task | list[Task]:
        """A task, or some; IndexError where there is none."""
        if isinstance(number, slice):
            return list(self.in_order(np.arange(len(self))[number]))
        return self._build(np.array([range(len(self))[number]]))[0]


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
