"""A pool without processes: what its workers do, and when, is up to the test."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from colophon.pipeline.executors.pool import Died, Event, Finished, Pool, Refused, Started
from colophon.pipeline.executors.worker import Greeting, Reply, greeting
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.stages.tasks import Outcome, Stage, Task, TaskResult, Worker


class Clock:
    """Time that passes only when a pool waits and no event comes."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class NoStage(Stage):
    """A stage of which nothing is started here."""

    name = "no stage"

    def start(self) -> Worker:
        raise NotImplementedError


@dataclass
class FakeWorker:
    """A worker and its tasks."""

    avoided: frozenset[str]
    started: bool = False
    tasks: deque[Task] = field(default_factory=deque)


class FakePool(Pool):
    """Asks `script` for the next event when the scheduler waits."""

    name = "fake"

    def __init__(
        self, *, size: int, clock: Clock, script: Callable[[FakePool], Event | None], nodes: Collection[str] = ("",)
    ) -> None:
        self.size = size
        self.node_names = frozenset(nodes)
        self.left_out: list[frozenset[str]] = []
        self.clock = clock
        self.script = script
        self.workers: dict[int, FakeWorker] = {}
        self.sent: list[tuple[int, str]] = []
        self.killed: list[int] = []
        self.waits: list[float] = []
        self.num_started = 0

    def capacity(self, *, without: Collection[str] = ()) -> int:
        self.left_out.append(frozenset(without))
        return self.size

    def nodes(self) -> Collection[str]:
        return self.node_names

    def open(self, stage: Stage) -> None:
        assert not any(worker.tasks for worker in self.workers.values()), "no worker has tasks of an earlier stage"

    def start(self, *, avoid: Collection[str]) -> int:
        self.num_started += 1
        self.workers[self.num_started] = FakeWorker(frozenset(avoid))
        assert len(self.workers) <= self.size
        return self.num_started

    def send(self, worker: int, task: Task) -> None:
        assert self.workers[worker].started
        self.workers[worker].tasks.append(task)
        self.sent.append((worker, task.partition.name))

    def kill(self, worker: int) -> None:
        del self.workers[worker]
        self.killed.append(worker)

    def wait(self, timeout: float) -> Sequence[Event]:
        self.waits.append(timeout)
        event = self.script(self)
        if event is None:
            self.clock.now += timeout
            return []
        return [event]

    def close(self) -> None:
        self.workers.clear()

    # What may happen to a worker.

    def started(self, worker: int, hello: Greeting | None = None) -> Event:
        self.workers[worker].started = True
        return Started(worker, hello or greeting())

    def finished(self, worker: int, *, own_bytes: int = 0) -> Event:
        task = self.workers[worker].tasks.popleft()
        result = TaskResult(records=(), documents=1, text_bytes=task.partition.bytes)
        return Finished(worker, Reply(Outcome(task=task, result=result), None, own_bytes))

    def refused(self, worker: int, reason: str, *, node: str, ends_run: bool = False) -> Event:
        del self.workers[worker]
        return Refused(worker, reason, node, ends_run)

    def lacks(self, worker: int, reason: str) -> Event:
        return Finished(worker, Reply(None, reason, 0, blames_node=True))

    def died(self, worker: int, reason: str = "worker died", *, node: str = "", oldest_ran: bool = True) -> Event:
        del self.workers[worker]
        return Died(worker, reason, node, oldest_ran)


def willing(pool: FakePool) -> Event | None:
    """Every worker starts and answers, the one with the lowest number first."""
    for number, worker in pool.workers.items():
        if not worker.started:
            return pool.started(number)
        if worker.tasks:
            return pool.finished(number)
    return None


def task(name: str, size: int = 1) -> Task:
    """A task of a partition of that many bytes."""
    partition = Partition(
        name=name,
        source=name,
        url=name,
        format="jsonl",
        row_groups=None,
        first_row=0,
        rows=1,
        bytes=size,
        identity=name,
    )
    return Task(partition=partition, outputs={"out": "fingerprint"})
