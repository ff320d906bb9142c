"""The scheduler: gives tasks to the workers of a pool and turns what the pool reports into outcomes.

What must not be lost is kept here: which tasks wait, which worker has which, and since when. A worker that dies or
hangs is replaced and its task attempted again. What the task did before does not matter, because only commits count.

Every event touches one worker and one task, never all of them: a task costs O(log n) with any number of workers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from colophon.pipeline.executors.base import Executor
from colophon.pipeline.executors.handshake import Requirements
from colophon.pipeline.executors.pool import Died, Event, Finished, Pool, Refused, Started
from colophon.pipeline.executors.start_failures import StartFailures
from colophon.pipeline.executors.task_queue import TaskQueue
from colophon.pipeline.recipe.schema import RaySection
from colophon.pipeline.stages.tasks import Outcome, Stage, Task
from colophon.shards.common.errors import ColophonError

CAPACITY_CHECK_SECONDS = 3.0
"""How often the pool is asked for its capacity, so that nodes that join a cluster are used."""

SMALL_TASK_BYTES = 32 << 20
"""A worker gets a second task while it works on a smaller one: the second one's arguments travel meanwhile. A task that
waits behind a large one would leave other workers idle at the end."""


@dataclass
class _WorkerState:
    """The state of one worker as the scheduler knows it."""

    started: bool = False
    node: str = ""
    retiring: bool = False
    """It is ended when it has no task left."""
    tasks: deque[Task] = field(default_factory=deque)
    """Sent and not answered, oldest first."""
    deadline: float = 0.0
    """When its oldest task is overdue."""


class Scheduler(Executor):
    """Runs the tasks of one stage after the other on the workers of a pool. As a context manager it ends the pool."""

    def __init__(self, pool: Pool, config: RaySection, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start nothing yet. `clock` gives the time in seconds."""
        self._pool = pool
        self._config = config
        self._clock = clock
        self._workers: dict[int, _WorkerState] = {}
        self._free: dict[int, None] = {}  # ready for a task; a dict without values is an ordered set
        self._half_free: dict[int, None] = {}  # work on one light task
        self._deadlines: list[tuple[float, int]] = []  # a heap; entries of tasks that are done are dropped when seen
        self._queue = TaskQueue([], max_attempts=config.max_attempts)
        self._failures = StartFailures(max_attempts=config.max_attempts)
        self._has_worked = False
        self._capacity = 0
        self._nodes: Collection[str] = ()
        self._capacity_until = 0.0

    @property
    def num_workers(self) -> int:
        """Workers that are ready or starting."""
        return len(self._workers)

    @property
    def spans_machines(self) -> bool:
        """Whether workers may run on other machines."""
        return self._pool.spans_machines

    @property
    def notes(self) -> Sequence[str]:
        """Lines on nodes that are left out."""
        return self._failures.notes

    def ready(self, num_tasks: int, requirements: Requirements | None = None) -> None:
        """Start a worker for each task, as many as the pool can run, and wait for the first one.

        Raises:
            ColophonError: none can be started, or a machine does not share the output.
        """
        if requirements is not None:
            self._pool.require(requirements)
        self._start_workers(num_tasks)
        while not any(worker.started for worker in self._workers.values()):
            for event in self._pool.wait(self._patience()):
                list(self._outcomes_of(event))
            self._start_workers(num_tasks)

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield every task's outcome once, as they finish.

        Raises:
            ColophonError: a worker raised what no retry mends (a full disk, a defect), or none can be started.
        """
        if not tasks:
            return
        self._queue = TaskQueue(tasks, max_attempts=self._config.max_attempts)
        try:
            self._pool.open(stage)
            while self._queue.num_unfinished:
                self._start_workers(self._queue.num_unfinished)
                self._send_tasks()
                for event in self._pool.wait(self._patience()):
                    yield from self._outcomes_of(event)
                yield from self._end_overdue()
        except BaseException:  # also if the caller wants no more outcomes: running tasks must not meet the next stage
            self.close()
            raise

    def close(self) -> None:
        """End all workers."""
        self._pool.close()
        for known in (self._workers, self._free, self._half_free, self._deadlines):
            known.clear()

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start_workers(self, num_tasks: int) -> None:
        """Start as many workers as there are tasks, up to the pool's capacity."""
        now = self._clock()
        if now >= self._capacity_until:
            self._ask_pool(now)
        avoided = self._failures.avoided(now=now)
        if "" in avoided or avoided.issuperset(self._nodes):
            return
        while len(self._workers) < min(num_tasks, self._capacity):
            self._workers[self._pool.start(avoid=avoided)] = _WorkerState()

    def _ask_pool(self, now: float) -> None:
        self._nodes = self._pool.nodes()
        self._capacity = self._pool.capacity(without=self._failures.excluded)
        self._capacity_until = now + CAPACITY_CHECK_SECONDS

    def _send_tasks(self) -> None:
        """Send waiting tasks: first one to every free worker, then light ones to workers that have one light task."""
        while (task := self._queue.peek()) is not None:
            if self._free:
                worker, _ = self._free.popitem()
            elif self._half_free and self._is_light(task):
                worker, _ = self._half_free.popitem()
            else:
                return
            self._queue.take()
            self._workers[worker].tasks.append(task)
            if len(self._workers[worker].tasks) == 1:
                self._begin_oldest(worker)
            self._pool.send(worker, task)

    def _begin_oldest(self, worker: int) -> None:
        """Note that the worker begins to work on its oldest task, which is its only one."""
        state = self._workers[worker]
        if self._config.partition_timeout_seconds is not None:
            state.deadline = self._clock() + self._config.partition_timeout_seconds
            heappush(self._deadlines, (state.deadline, worker))
        if self._is_light(state.tasks[0]) and not state.retiring:
            self._half_free[worker] = None

    def _is_light(self, task: Task) -> bool:
        """Whether a worker may have another task besides this one."""
        return task.partition.bytes <= SMALL_TASK_BYTES and not self._queue.is_suspect(task)

    def _outcomes_of(self, event: Event) -> Iterator[Outcome]:
        """Bring the bookkeeping up to date, and yield the outcome that the event is, if it is one."""
        if event.worker not in self._workers:
            return  # it was killed, and reported this before
        if isinstance(event, Started):
            self._started(event)
        elif isinstance(event, Finished):
            yield from self._finished(event)
        elif isinstance(event, Refused):
            self._refused(event)
        elif self._workers[event.worker].started:
            yield from self._lose(event.worker, reason=event.reason, oldest_ran=event.oldest_ran)
        else:
            self._failed_start(event)

    def _failed_start(self, event: Died) -> None:
        del self._workers[event.worker]
        self._failures.failed(event.node, event.reason, now=self._clock())
        self._check_nodes()

    def _refused(self, event: Refused) -> None:
        del self._workers[event.worker]
        if event.ends_run and not self._has_worked:
            raise ColophonError(f"{self._pool.name}: node {event.node}: {event.reason}")
        self._failures.refuse(event.node, event.reason)
        self._check_nodes()

    def _check_nodes(self) -> None:
        """Ask for the pool's capacity without the nodes that are left out.

        Raises:
            ColophonError: no worker is left, and none can be started.
        """
        self._ask_pool(self._clock())
        if not self._workers and (reason := self._failures.give_up_reason(self._nodes)):
            raise ColophonError(f"{self._pool.name}: {reason}")

    def _started(self, event: Started) -> None:
        self._failures.succeeded(event.greeting.node)
        state = self._workers[event.worker]
        state.started, state.node = True, event.greeting.node
        self._free[event.worker] = None

    def _finished(self, event: Finished) -> Iterator[Outcome]:
        reply, state = event.reply, self._workers[event.worker]
        if reply.outcome is None and reply.blames_node and state.node:
            self._leave_out(event.worker, reply.defect or "it lacks what the work needs")
            return
        if reply.outcome is None:
            raise ColophonError(reply.defect or "a worker failed without a reason")
        task = state.tasks.popleft()
        if reply.outcome.task.partition.name != task.partition.name:
            raise ColophonError(f"{task.partition.name}: a worker answered another task. This is a defect.")
        self._queue.finish(task)
        self._has_worked = True
        self._half_free.pop(event.worker, None)
        limit = self._config.worker_memory_bytes
        state.retiring |= limit is not None and reply.own_bytes > limit
        if state.tasks:
            self._begin_oldest(event.worker)
        elif state.retiring:
            self._forget(event.worker)
            self._pool.kill(event.worker)
        else:
            self._free[event.worker] = None
        yield replace(reply.outcome, task=task)

    def _leave_out(self, worker: int, reason: str) -> None:
        """End a worker whose machine lacks something, and leave its node out; other workers get its tasks."""
        state = self._forget(worker)
        self._pool.kill(worker)
        for task in state.tasks:
            self._queue.put_back(task)
        self._failures.refuse(state.node, reason)
        self._check_nodes()

    def _lose(self, worker: int, *, reason: str, oldest_ran: bool) -> Iterator[Outcome]:
        """Forget a worker. Its oldest task is blamed, if it surely ran; the others wait again."""
        state = self._forget(worker)
        if not oldest_ran:
            for task in state.tasks:
                self._queue.suspect(task)
            return
        if not state.tasks:
            return
        blamed = state.tasks.popleft()
        for task in state.tasks:
            self._queue.put_back(task)
        if not self._queue.blame(blamed):
            yield Outcome(task=blamed, error=f"{reason} ({self._config.max_attempts} attempts)")

    def _forget(self, worker: int) -> _WorkerState:
        self._free.pop(worker, None)
        self._half_free.pop(worker, None)
        return self._workers.pop(worker)

    def _next_deadline(self) -> tuple[float, int] | None:
        """The earliest deadline of a task that runs, and its worker."""
        while self._deadlines:
            deadline, worker = self._deadlines[0]
            state = self._workers.get(worker)
            if state is not None and state.tasks and state.deadline == deadline:
                return deadline, worker
            heappop(self._deadlines)
        return None

    def _end_overdue(self) -> Iterator[Outcome]:
        """Kill workers whose task is overdue."""
        while (overdue := self._next_deadline()) is not None and overdue[0] <= self._clock():
            for event in self._pool.wait(0):  # it may have finished while the caller used the last outcome
                yield from self._outcomes_of(event)
            if self._next_deadline() == overdue:
                self._pool.kill(overdue[1])
                reason = f"took longer than {self._config.partition_timeout_seconds:g} seconds"
                yield from self._lose(overdue[1], reason=reason, oldest_ran=True)

    def _patience(self) -> float:
        """Seconds until something is due: a task's deadline, another start, a look at the capacity."""
        now = self._clock()
        times = [max(self._capacity_until, now) if self._queue.peek() else now + CAPACITY_CHECK_SECONDS]
        if (overdue := self._next_deadline()) is not None:
            times.append(overdue[0])
        if (resume := self._failures.next_resume(now=now)) is not None:
            times.append(resume)
        return max(min(times) - now, 0.0)
