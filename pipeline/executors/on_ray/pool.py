"""Ray, and nothing but Ray: a pool of actors, one process a core, and jobs sent to a cluster.

The driver keeps what must not be lost: which tasks wait, which run where and since when. An actor that dies or hangs is
replaced and its tasks are tried again; what a task did before it died does not matter, because only commits count.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import ray
from ray.exceptions import RayError, RayTaskError

from colophon.pipeline.executors.base import Executor
from colophon.pipeline.executors.on_ray.cluster import check_nodes, num_cpus
from colophon.pipeline.executors.worker import WORKER_ENVIRONMENT, Workplace
from colophon.pipeline.recipe.schema import RaySection
from colophon.pipeline.stages.tasks import Outcome, Stage, Task
from colophon.shards.common.errors import ColophonError

_IN_FLIGHT = 2  # one is worked on while the next one's arguments travel
_LOOK_AT_NODES_SECONDS = 5.0
_GET_SECONDS = 60.0  # for what is ready, and small; it may still be on a node that has just died
_WATCH_MEMORY_SECONDS = 0.2
_MEMORY_SLACK_BYTES = 512 << 20


class _Actor:
    """One process: works on the tasks of one stage after the other."""

    def __init__(self, most_bytes: int | None) -> None:
        # Read when the libraries are first used; a runtime environment of their own would cost each actor seconds.
        os.environ.update(WORKER_ENVIRONMENT)
        if most_bytes is not None:
            threading.Thread(target=_end_above, args=(most_bytes,), name="memory", daemon=True).start()
        import pyarrow as pa

        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        self._workplace = Workplace()

    def ready(self) -> None:
        """Answers when the process is there."""

    def work(self, number: int, stage: list[Any], task: Task) -> tuple[Outcome, int]:
        """The outcome and this process's own resident bytes after it; `stage` holds a reference, got when needed."""
        outcome = self._workplace.work(task, number=number, stage=lambda: ray.get(stage[0]))
        return outcome, _own_bytes()


def _own_bytes() -> int:
    """Resident memory of this process without mapped files: models that all workers share, what the system can drop."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def _end_above(most_bytes: int) -> None:
    """End the process when it holds more: before the machine has none left, and some other process is killed for it."""
    while _own_bytes() <= most_bytes:
        time.sleep(_WATCH_MEMORY_SECONDS)
    os._exit(1)


@dataclass
class _Slot:
    """An actor and the tasks that it has, in the order in which it works on them."""

    actor: Any
    starting: Any
    """Resolves when the actor is there; None from then on. On a cluster that has lost a node it may wait for long."""
    tasks: dict[Any, Task] = field(default_factory=dict)
    busy_since: float = 0.0
    retiring: bool = False

    def is_overdue(self, limit: float) -> bool:
        """Whether its first task has taken more than `limit` seconds, as far as is known."""
        return bool(self.tasks) and time.monotonic() - self.busy_since > limit


class RayExecutor(Executor):
    """Runs tasks on actors of the connected cluster, largest partitions first; all stages on the same actors.

    As a context manager it ends its actors.
    """

    def __init__(self, config: RaySection) -> None:
        """Start nothing yet."""
        self._config = config
        self._slots: list[_Slot] = []
        self._num_stages = 0

    def ready(self, num_tasks: int) -> None:
        """Start as many actors as there are workers or tasks, and wait for the first one."""
        wanted = min(self._config.num_workers or num_cpus(), num_tasks)
        new = [self._new_slot() for _ in range(wanted - len(self._slots))]
        self._slots += new
        if new:
            ray.wait([slot.starting for slot in new], num_returns=1)

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Outcomes as they finish.

        Raises:
            ColophonError: a worker raised what no retry mends (a full disk, a defect).
        """
        if not tasks:
            return
        self.ready(len(tasks))
        self._num_stages += 1
        work = _StageRun(self, self._num_stages, stage, tasks)
        try:
            yield from work.outcomes()
        except BaseException:  # also when nobody wants more: what is in flight must not meet the next stage
            self.close()
            raise

    @property
    def config(self) -> RaySection:
        """How many actors, how large, and how often a task is tried."""
        return self._config

    @property
    def slots(self) -> Sequence[_Slot]:
        """The actors."""
        return tuple(self._slots)

    def swap(self, slot: _Slot) -> None:
        """A new actor in the place of one that is gone or is to go."""
        with suppress(RayError):
            ray.kill(slot.actor)
        self._slots[self._slots.index(slot)] = self._new_slot()

    def close(self) -> None:
        """End all actors."""
        for slot in self._slots:
            with suppress(RayError):
                ray.kill(slot.actor)
        self._slots = []

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _new_slot(self) -> _Slot:
        options: dict[str, Any] = {"num_cpus": 1}
        limit = self._config.worker_memory_bytes
        most_bytes = None
        if limit is not None:
            options["memory"], most_bytes = limit, limit + max(limit, _MEMORY_SLACK_BYTES)
        actor = ray.remote(**options)(_Actor).remote(most_bytes)
        return _Slot(actor, starting=actor.ready.remote())


class _StageRun:
    """The tasks of one stage: which wait, which run where and since when."""

    def __init__(self, executor: RayExecutor, number: int, stage: Stage, tasks: Sequence[Task]) -> None:
        # Largest first, so that no worker is left alone with a large partition at the end.
        self._waiting = deque(sorted(tasks, key=lambda task: -task.partition.bytes))
        self._attempts = dict.fromkeys((task.partition.name for task in tasks), 0)
        self._executor = executor
        self._config = executor.config
        self._number = number
        self._stage = [ray.put(stage)]  # in a list: Ray would hand the stage itself over with every task
        self._failed_starts = 0

    def outcomes(self) -> Iterator[Outcome]:
        """Every task's outcome, once.

        Raises:
            ColophonError: a worker raised what no retry mends, or none can be started.
        """
        while self._waiting or any(slot.tasks for slot in self._executor.slots):
            self._fill()
            starting = [slot.starting for slot in self._executor.slots if slot.starting is not None]
            running = [ref for slot in self._executor.slots for ref in slot.tasks]
            ready, _ = ray.wait(starting + running, timeout=self._patience())
            if not ready:
                check_nodes()
            for ref in ready:
                slot = next((s for s in self._executor.slots if ref in s.tasks or ref == s.starting), None)
                if slot is None:  # taken together with another task of its actor
                    continue
                if slot.starting is not None:
                    self._started(slot)
                else:
                    yield from self._collect(slot)
            yield from self._kill_overdue()

    def _started(self, slot: _Slot) -> None:
        try:
            ray.get(slot.starting)
        except RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= self._config.max_attempts:
                raise ColophonError(f"ray: no worker can be started: {_died(error)}") from error
            self._executor.swap(slot)
        else:
            self._failed_starts = 0
            slot.starting = None

    def _fill(self) -> None:
        """Hand out waiting tasks: first one to every actor that is there, then the next in line."""
        there = [slot for slot in self._executor.slots if slot.starting is None and not slot.retiring]
        for depth in range(1, _IN_FLIGHT + 1):
            for slot in there:
                if self._waiting and len(slot.tasks) < depth:
                    if not slot.tasks:
                        slot.busy_since = time.monotonic()
                    task = self._waiting.popleft()
                    slot.tasks[slot.actor.work.remote(self._number, self._stage, task)] = task

    def _collect(self, slot: _Slot) -> Iterator[Outcome]:
        """What an actor has done, in the order in which it works: Ray may tell of a later task, or its death, first."""
        while slot.tasks:
            ref = next(iter(slot.tasks))
            if not ray.wait([ref], timeout=0)[0]:
                return
            try:
                outcome, own_bytes = ray.get(ref, timeout=_GET_SECONDS)
            except RayTaskError as error:
                cause = error.cause
                named = isinstance(cause, ColophonError)
                raise ColophonError(str(cause) if named else f"{type(cause).__name__}: {cause}") from error
            except RayError as error:  # the actor, its node or its environment: not what the work is
                yield from self._replace(slot, reason=_died(error))
                return
            del slot.tasks[ref]
            slot.busy_since = time.monotonic()
            limit = self._config.worker_memory_bytes
            slot.retiring |= limit is not None and own_bytes > limit
            if slot.retiring and not slot.tasks:
                self._executor.swap(slot)
            yield outcome

    def _replace(self, slot: _Slot, *, reason: str) -> Iterator[Outcome]:
        """The actor is gone: its first task that is not done is blamed, the others only wait again."""
        tasks = list(slot.tasks.values())
        slot.tasks.clear()
        self._executor.swap(slot)
        blamed = tasks[0]
        self._attempts[blamed.partition.name] += 1
        self._waiting.extendleft(tasks[1:])
        if self._attempts[blamed.partition.name] >= self._config.max_attempts:
            yield Outcome(task=blamed, error=f"{reason} ({self._config.max_attempts} attempts)")
        else:
            self._waiting.append(blamed)

    def _patience(self) -> float:
        """Seconds until the next running task is overdue, or it is time to look whether there still is a cluster."""
        limit = self._config.partition_timeout_seconds
        begun = [slot.busy_since for slot in self._executor.slots if slot.tasks]
        if limit is None or not begun:
            return _LOOK_AT_NODES_SECONDS
        return min(max(min(begun) + limit - time.monotonic(), 0.01), _LOOK_AT_NODES_SECONDS)

    def _kill_overdue(self) -> Iterator[Outcome]:
        limit = self._config.partition_timeout_seconds
        if limit is None:
            return
        for slot in self._executor.slots:
            if slot.is_overdue(limit):
                yield from self._collect(slot)  # it may be done, while whoever takes the outcomes took their time
            if slot.is_overdue(limit):
                yield from self._replace(slot, reason=f"took longer than {limit:g} seconds")


def _died(error: RayError) -> str:
    """Ray's account without its line breaks: the first line names the kind, the next ones the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "worker died: " + (" ".join(lines)[:300] if lines else type(error).__name__)
