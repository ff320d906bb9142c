"""The tasks of one stage: which wait, how often each was attempted, and which have their outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np

from colophon.pipeline.stages.tasks import Task, Tasks
from colophon.shards.common.errors import ColophonError


class TaskQueue:
    """Hands tasks out, largest partition first, so that no worker is left alone with a large one at the end.

    A task that may have ended its worker waits behind all others, and is worked on alone, so that its next failure is
    surely its own. Every operation costs O(log n), and only tasks that were handed out take more than some bytes.
    """

    def __init__(self, tasks: Sequence[Task], *, max_attempts: int) -> None:
        """Let all tasks wait.

        Raises:
            ValueError: two tasks have the same partition.
        """
        tasks = Tasks.of(tasks)
        self._max_attempts = max_attempts
        self._fresh = tasks.in_order(np.argsort(-tasks.sizes, kind="stable"))
        self._next = next(self._fresh, None)
        """The largest task that was never handed out."""
        self._returned: list[tuple[int, int, int, Task]] = []
        """A heap of tasks that wait again, e.g. (1, -900, 2, task): suspected once, 900 bytes, second to return."""
        self._num_returned = 0
        self._taken: dict[str, Task] = {}
        """The tasks that were handed out and have no outcome, by partition; those that wait again among them."""
        self._failures: Counter[str] = Counter()
        self._suspicions: Counter[str] = Counter()
        self._num_unfinished = len(tasks)

    @property
    def num_unfinished(self) -> int:
        """How many tasks have no outcome yet: those that wait and those that are being worked on."""
        return self._num_unfinished

    def peek(self) -> Task | None:
        """Return the task that `take` would return; None if none waits."""
        return self._returned[0][3] if self._returns_first() else self._next

    def take(self) -> Task:
        """Return the next waiting task; it waits no more."""
        if self._returns_first():
            return heappop(self._returned)[3]
        task = self._next
        if task is None:
            raise IndexError("no task waits")
        self._next = next(self._fresh, None)
        self._taken[task.partition.name] = task
        return task

    def _returns_first(self) -> bool:
        """Whether a task that waits again comes before those that were never handed out."""
        if not self._returned or self._next is None:
            return bool(self._returned)
        return self._returned[0][:2] <= (0, -self._next.partition.bytes)

    def put_back(self, task: Task) -> None:
        """Let a task wait again that nobody has begun to work on."""
        self._num_returned += 1
        suspicions = self._suspicions[task.partition.name]
        heappush(self._returned, (suspicions, -task.partition.bytes, self._num_returned, task))

    def suspect(self, task: Task) -> None:
        """Let a task wait again that may have ended its worker, or may have been finished or not begun."""
        self._suspicions[task.partition.name] += 1
        self.put_back(task)

    def is_suspect(self, task: Task) -> bool:
        """Whether the task may have ended a worker."""
        return self._suspicions[task.partition.name] > 0

    def blame(self, task: Task) -> bool:
        """Count a failed attempt. Return whether the task waits for another one; if not, it is finished."""
        self._failures[task.partition.name] += 1
        if self._failures[task.partition.name] >= self._max_attempts:
            self.finish(task)
            return False
        self.suspect(task)
        return True

    def finish(self, task: Task) -> None:
        """Record that the task has its outcome.

        Raises:
            ColophonError: it has one already.
        """
        if self._taken.pop(task.partition.name, None) is None:
            raise ColophonError(f"{task.partition.name}: two outcomes of one task. This is a defect.")
        self._num_unfinished -= 1
