"""The tasks of one stage: which wait, how often each was attempted, and which have their outcome."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from colophon.pipeline.stages.tasks import Task
from colophon.shards.common.errors import ColophonError


class TaskQueue:
    """Hands tasks out, largest partition first, so that no worker is left alone with a large one at the end.

    A task that may have ended its worker waits behind all others, and is worked on alone, so that its next failure is
    surely its own. Every operation costs O(log n).
    """

    def __init__(self, tasks: Sequence[Task], *, max_attempts: int) -> None:
        """Let all tasks wait.

        Raises:
            ValueError: two tasks have the same partition.
        """
        self._tasks = tuple(tasks)
        self._max_attempts = max_attempts
        self._places = {task.partition.name: place for place, task in enumerate(self._tasks)}
        if len(self._places) < len(self._tasks):
            raise ValueError("two tasks of a stage have the same partition")
        self._failures = [0] * len(self._tasks)
        self._suspicions = [0] * len(self._tasks)
        self._open = set(self._places)
        # E.g. (0, -900, 1): never suspected, 900 bytes, second of the tasks.
        self._waiting = [(0, -task.partition.bytes, place) for place, task in enumerate(self._tasks)]
        heapify(self._waiting)

    @property
    def num_unfinished(self) -> int:
        """How many tasks have no outcome yet: those that wait and those that are being worked on."""
        return len(self._open)

    def peek(self) -> Task | None:
        """Return the task that `take` would return; None if none waits."""
        return self._tasks[self._waiting[0][2]] if self._waiting else None

    def take(self) -> Task:
        """Return the next waiting task; it waits no more."""
        return self._tasks[heappop(self._waiting)[2]]

    def put_back(self, task: Task) -> None:
        """Let a task wait again that nobody has begun to work on."""
        place = self._places[task.partition.name]
        heappush(self._waiting, (self._suspicions[place], -task.partition.bytes, place))

    def suspect(self, task: Task) -> None:
        """Let a task wait again that may have ended its worker, or may have been finished or not begun."""
        self._suspicions[self._places[task.partition.name]] += 1
        self.put_back(task)

    def is_suspect(self, task: Task) -> bool:
        """Whether the task may have ended a worker."""
        return self._suspicions[self._places[task.partition.name]] > 0

    def blame(self, task: Task) -> bool:
        """Count a failed attempt. Return whether the task waits for another one; if not, it is finished."""
        place = self._places[task.partition.name]
        self._failures[place] += 1
        if self._failures[place] >= self._max_attempts:
            self.finish(task)
            return False
        self.suspect(task)
        return True

    def finish(self, task: Task) -> None:
        """Record that the task has its outcome.

        Raises:
            ColophonError: it has one already.
        """
        try:
            self._open.remove(task.partition.name)
        except KeyError:
            raise ColophonError(f"{task.partition.name}: two outcomes of one task. This is a defect.") from None
