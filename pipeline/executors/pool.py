"""The interface between the scheduler and a pool of workers: what a pool can do, and what it reports."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from colophon.pipeline.executors.handshake import Requirements
from colophon.pipeline.executors.worker import Greeting, Reply
from colophon.pipeline.stages.tasks import Stage, Task


@dataclass(frozen=True)
class Started:
    """A worker is ready for its first task."""

    worker: int
    greeting: Greeting


@dataclass(frozen=True)
class Refused:
    """A worker is gone before its first task, because its machine is not like the driver's."""

    worker: int
    reason: str
    node: str
    ends_run: bool = False
    """Whether the run ends, unless it has done work already: the output is not shared."""


@dataclass(frozen=True)
class Finished:
    """A worker has answered the oldest task that it had."""

    worker: int
    reply: Reply


@dataclass(frozen=True)
class Died:
    """A worker is gone. None of the tasks that it had will be answered."""

    worker: int
    reason: str
    node: str = ""
    """Where the worker ran, if the pool knows."""
    oldest_ran: bool = True
    """Whether its oldest task surely was the one that it worked on. If not, an answer may have been lost."""


Event = Started | Refused | Finished | Died


class Pool(Protocol):
    """Processes that work on the tasks of one stage after the other. Workers are numbers; none is used twice.

    Events of one worker come in the order in which they happened: `Started`, a `Finished` for each task in the order in
    which the tasks were sent, and perhaps `Died`; or `Refused` alone. A killed worker reports nothing more.
    """

    @property
    def name(self) -> str:
        """The pool's name in messages."""
        ...

    @property
    def spans_machines(self) -> bool:
        """Whether workers may run on other machines."""
        return False

    def capacity(self, *, without: Collection[str]) -> int:
        """The number of workers that can run now on nodes that are not in `without`; it may change at any time."""
        ...

    def nodes(self) -> Collection[str]:
        """The living nodes; a pool of one machine has one with an empty name."""
        return frozenset([""])

    def require(self, requirements: Requirements) -> None:
        """Refuse workers whose machine lacks something, from now on. A pool of one machine has nothing to check."""
        return

    def open(self, stage: Stage) -> None:
        """Set the stage of all tasks that are sent from now on. No worker has a task."""
        ...

    def start(self, *, avoid: Collection[str]) -> int:
        """Begin to start a worker on none of the nodes in `avoid`. `Started`, `Refused` or `Died` will report it."""
        ...

    def send(self, worker: int, task: Task) -> None:
        """Append a task to those that the worker has. It does not raise if the worker is gone: `Died` reports that."""
        ...

    def kill(self, worker: int) -> None:
        """End a worker at once."""
        ...

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return what happened since the last call. If nothing did, wait up to `timeout` seconds.

        Raises:
            ColophonError: no worker can run any more.
        """
        ...

    def close(self) -> None:
        """End all workers. New ones can be started afterwards."""
        ...
