"""Runs tasks one after the other in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from colophon.pipeline.executors.base import Executor
from colophon.pipeline.executors.worker import Workplace
from colophon.pipeline.stages.tasks import Outcome, Stage, Task


class InlineExecutor(Executor):
    """Works on tasks one after the other in this process."""

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield outcomes in the tasks' order."""
        workplace = Workplace()
        for task in tasks:
            yield workplace.work(task, number=0, stage=lambda: stage)
