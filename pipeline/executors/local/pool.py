"""A pool of processes on this machine, forked from a server that has imported the stages; a pipe to each."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from selectors import EVENT_READ, DefaultSelector
from types import ModuleType

from colophon.pipeline.errors import one_line
from colophon.pipeline.executors.cpus import num_cpus_here
from colophon.pipeline.executors.environment import WORKER_ENVIRONMENT
from colophon.pipeline.executors.local.fork_server import CONTEXT, start_fork_server
from colophon.pipeline.executors.local.output import WorkerOutput
from colophon.pipeline.executors.local.worker_process import Message, serve
from colophon.pipeline.executors.pool import Died, Event, Finished, Pool, Started
from colophon.pipeline.executors.worker import MEMORY_EXIT_CODE, Greeting, hard_limit
from colophon.pipeline.recipe.schema import RaySection
from colophon.pipeline.stages.tasks import Stage, Task
from colophon.shards.common.errors import ColophonError

_EXIT_SECONDS = 10.0


@dataclass
class _Process:
    """A worker as the driver sees it."""

    process: BaseProcess
    connection: Connection
    stage_number: int = 0
    """The stage that it has been sent."""


class LocalPool(Pool):
    """Workers as processes of this machine."""

    name = "local"

    def __init__(self, config: RaySection) -> None:
        """Start nothing yet."""
        self._most_bytes = hard_limit(config.worker_memory_bytes)
        self._num_workers = config.num_workers or num_cpus_here()
        self._numbers = count()
        self._processes: dict[int, _Process] = {}
        self._failed_starts: list[Event] = []
        self._output: WorkerOutput | None = None
        self._selector = DefaultSelector()
        self._stage_number = 0
        self._stage = b""

    def capacity(self, *, without: Collection[str] = ()) -> int:
        """As many workers as the recipe says, else one for each CPU."""
        return self._num_workers

    def open(self, stage: Stage) -> None:
        """Pickle the stage once; each worker gets it with its first task.

        Raises:
            ColophonError: it cannot be pickled.
        """
        self._stage_number += 1
        try:
            self._stage = bytes(ForkingPickler.dumps(stage))
        except Exception as error:  # whatever the parts of a stage raise
            raise ColophonError(f"local: the stage {stage.name} cannot be sent to a process: {error}") from error

    def start(self, *, avoid: Collection[str] = ()) -> int:
        """Fork a worker."""
        start_fork_server()
        here, there = CONTEXT.Pipe()
        self._output = self._output or WorkerOutput()
        environment = {**os.environ, **WORKER_ENVIRONMENT}
        arguments = (there, self._output.for_workers, environment, self._most_bytes)
        process = CONTEXT.Process(target=serve, args=arguments, daemon=True)
        worker = next(self._numbers)
        try:
            with there, _without_main():
                process.start()
        except (OSError, EOFError) as error:  # the server has ended, or the system has no process left
            here.close()
            self._failed_starts.append(Died(worker, f"worker died: {type(error).__name__} {one_line(error)}"))
            return worker
        self._processes[worker] = _Process(process, here)
        self._selector.register(here, EVENT_READ, worker)
        return worker

    def send(self, worker: int, task: Task) -> None:
        """Write the task into the worker's pipe."""
        state = self._processes[worker]
        stage = self._stage if state.stage_number != self._stage_number else None
        state.stage_number = self._stage_number
        message: Message = (self._stage_number, stage, task)
        with suppress(BrokenPipeError, ConnectionResetError):  # `wait` will report its death
            state.connection.send(message)

    def kill(self, worker: int) -> None:
        """Kill the process."""
        self._processes[worker].process.kill()
        self._exit_code(worker)

    def wait(self, timeout: float) -> list[Event]:
        """Return at most one event of each worker."""
        events, self._failed_starts = self._failed_starts, []
        ready = self._selector.select(0 if events else timeout)
        return [*events, *(self._event(key.data) for key, _ in ready)]

    def close(self) -> None:
        """Kill all processes."""
        self._failed_starts.clear()
        for state in self._processes.values():
            state.process.kill()
        for worker in list(self._processes):
            self._exit_code(worker)
        if self._output is not None:
            self._output.close()
            self._output = None

    def _event(self, worker: int) -> Event:
        try:
            message = self._processes[worker].connection.recv()
        except (EOFError, OSError):  # the process has closed its end, perhaps in the middle of a message
            return Died(worker, reason=self._death(worker))
        return Started(worker, message) if isinstance(message, Greeting) else Finished(worker, message)

    def _death(self, worker: int) -> str:
        code = self._exit_code(worker)
        if code == MEMORY_EXIT_CODE:
            return f"worker died: it held more than {self._most_bytes} bytes of memory"
        if code is not None and code < 0:
            return f"worker died: ended by {signal.Signals(-code).name}"
        return f"worker died: exit code {code}"

    def _exit_code(self, worker: int) -> int | None:
        """Forget a process that ends, and return its exit code."""
        state = self._processes.pop(worker)
        self._selector.unregister(state.connection)
        state.connection.close()
        state.process.join(_EXIT_SECONDS)
        if state.process.exitcode is None:
            state.process.kill()
        return state.process.exitcode


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the user's script: each process would run it again, to find what is defined in it.

    So a script needs no `if __name__ == "__main__"`, and an annotator must be defined in a module that can be imported.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
