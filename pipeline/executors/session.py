"""Chooses the executor of a command, starts it before the first task and ends it after the last one."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from colophon.pipeline.executors.cpus import num_cpus_here

if TYPE_CHECKING:
    from colophon.pipeline.executors.base import Executor
    from colophon.pipeline.recipe.schema import RaySection


class ExecutorName(str, Enum):
    """Where tasks run."""

    AUTO = "auto"
    LOCAL = "local"
    RAY = "ray"
    INLINE = "inline"


def resolve_executor(name: ExecutorName, config: RaySection) -> ExecutorName:
    """Return what `auto` means: Ray if `RAY_ADDRESS` or the recipe names a cluster, else local processes."""
    if name is not ExecutorName.AUTO:
        return name
    return ExecutorName.RAY if cluster_address(config) else ExecutorName.LOCAL


def cluster_address(config: RaySection) -> str | None:
    """Return the address of a running cluster that `RAY_ADDRESS` or the recipe names; `local` names none."""
    address = os.environ.get("RAY_ADDRESS") or config.address
    return None if address == "local" else address


class ExecutorSession:
    """An executor around one command, as a context manager: `connect`, then run stages on `executor`.

    Libraries are imported when they are needed: importing Ray takes a second.
    """

    def __init__(self, name: ExecutorName, config: RaySection, *, log: Callable[[str], None]) -> None:
        """Start nothing yet. `log` gets a line on where tasks run."""
        self._name = resolve_executor(name, config)
        self._config = config
        self._log = log
        self._begun = False
        self._lines: list[str] = []
        # Linux ends Ray's processes when the thread that started them ends: this one ends last.
        self._thread: ThreadPoolExecutor | None = None
        self._connection: Future[None] | None = None
        self._disconnection: Future[None] | None = None

    @cached_property
    def executor(self) -> Executor:
        """The executor; it has started no worker yet."""
        if self._name is ExecutorName.INLINE:
            from colophon.pipeline.executors.inline import InlineExecutor

            return InlineExecutor()
        from colophon.pipeline.executors.scheduler import Scheduler

        if self._name is ExecutorName.RAY:
            from colophon.pipeline.executors.on_ray.pool import RayPool

            return Scheduler(RayPool(self._config), self._config)
        from colophon.pipeline.executors.local.pool import LocalPool

        return Scheduler(LocalPool(self._config), self._config)

    @property
    def has_workers(self) -> bool:
        """Whether tasks run in other processes."""
        return self._name is not ExecutorName.INLINE

    @property
    def num_workers(self) -> int:
        """The number of workers on this machine."""
        return 1 if self._name is ExecutorName.INLINE else self._config.num_workers or num_cpus_here()

    @property
    def spans_machines(self) -> bool:
        """Whether tasks run on a cluster that existed before."""
        return self._name is ExecutorName.RAY and cluster_address(self._config) is not None

    def begin(self) -> None:
        """Begin to start what the workers need, without waiting for it: for a run that will surely have tasks.

        A running cluster is not asked for anything before `connect`: the errors of a recipe come first.
        """
        if self._name is not ExecutorName.RAY or cluster_address(self._config) is None:
            self._begin()

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        if self._name is ExecutorName.RAY:
            self._thread = ThreadPoolExecutor(1)
            self._connection = self._thread.submit(self._connect_to_ray)
        elif self._name is ExecutorName.LOCAL:
            from colophon.pipeline.executors.local.fork_server import start_fork_server

            start_fork_server()
            number = self._config.num_workers or num_cpus_here()
            self._lines.append(f"{number} local worker{'s' if number > 1 else ''}")

    def connect(self) -> None:
        """Wait until workers can be started, and log where they run.

        Raises:
            UsageError: no Ray cluster answers.
        """
        if not self._begun and self._name is ExecutorName.RAY and (address := cluster_address(self._config)):
            self._log(f"ray: connecting to {address.rpartition('@')[2]}")  # before an @ may be a password
        self._begin()
        if self._connection is not None:
            self._connection.result()
        while self._lines:
            self._log(self._lines.pop(0))

    def leave(self) -> None:
        """End workers and leave Ray, where all tasks are done, on a thread while the command continues."""
        if self._thread is None:
            if "executor" in self.__dict__:
                self.executor.close()
        elif self._disconnection is None:
            self._disconnection = self._thread.submit(self._disconnect_from_ray)

    def __enter__(self) -> ExecutorSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        if self._thread is not None:
            if self._disconnection is not None:
                self._disconnection.result()
            self._thread.shutdown()

    def _connect_to_ray(self) -> None:
        from colophon.pipeline.executors.on_ray.cluster import connect

        connect(self._config, log=self._lines.append)

    def _disconnect_from_ray(self) -> None:
        from colophon.pipeline.executors.on_ray.cluster import disconnect

        if "executor" in self.__dict__:
            self.executor.close()
        disconnect()
