"""The interface between the scheduler and a pool of workers: what a pool can do, and what it reports."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from colophon.pipeline.executors.worker import Greeting, Reply
from colophon.pipeline.stages.tasks import Stage, Task


@dataclass(frozen=True)
class Started:
    """A worker is ready for its first task."""

    worker: int
    greeting: Greeting


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


Event = Started | Finished | Died


class Pool(Protocol):
    """Processes that work on the tasks of one stage after the other. Workers are numbers; none is used twice.

    Events of one worker come in the order in which they happened: `Started`, a `Finished` for each task in the order in
    which the tasks were sent, and perhaps `Died`. A killed worker reports nothing more.
    """

    @property
    def name(self) -> str:
        """The pool's name in messages."""
        ...

    @property
    def spans_machines(self) -> bool:
        """Whether workers may run on other machines."""
        return False

    def capacity(self) -> int:
        """The number of workers that can run now, at least 1. It may change while a stage runs."""
        ...

    def open(self, stage: Stage) -> None:
        """Set the stage of all tasks that are sent from now on. No worker has a task."""
        ...

    def start(self, *, avoid: Collection[str]) -> int:
        """Begin to start a worker, if possible on none of the nodes in `avoid`. `Started` or `Died` will report it."""
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
