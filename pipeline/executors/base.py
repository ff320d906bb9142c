"""The interface of an executor: it runs tasks somewhere and yields their outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from colophon.pipeline.executors.handshake import Requirements
from colophon.pipeline.stages.tasks import Outcome, Stage, Task


class Executor(Protocol):
    """Runs tasks somewhere. One executor runs all stages of a run, one after the other."""

    @property
    def spans_machines(self) -> bool:
        """Whether workers may run on other machines."""
        return False

    @property
    def notes(self) -> Sequence[str]:
        """Lines on machines that are left out."""
        return ()

    def ready(self, num_tasks: int, requirements: Requirements | None = None) -> None:
        """Start what a stage of `num_tasks` tasks needs. A run calls it first, so that this counts as starting.

        `requirements`: what every worker's machine must have; None: as before.
        """
        return

    def close(self) -> None:
        """End what was started."""
        return

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield outcomes as they come; every task has exactly one."""
        ...
