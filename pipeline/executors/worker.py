"""One worker process: it holds the models of one stage at a time, turns tasks into replies, and watches its memory.

How the process is started, and how tasks and replies travel, is the executor's business alone.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from colophon import __version__
from colophon.annotators.base import AnnotatorError
from colophon.pipeline.errors import InputError, NodeError, one_line
from colophon.pipeline.stages.tasks import Outcome, Stage, Task, Worker
from colophon.shards.common.errors import ColophonError, PanicError, ShardError, panics_as_errors
from colophon.shards.common.output_paths import OutputPathError
from colophon.shards.common.url_secrets import without_secrets
from colophon.shards.stores.retry import is_transient, retried

MEMORY_EXIT_CODE = 70
"""The exit code of a worker that holds far more memory than it may."""

_MEMORY_CHECK_SECONDS = 0.2
_MEMORY_SLACK_BYTES = 512 << 20


@dataclass(frozen=True)
class Greeting:
    """A worker's report of itself before its first task."""

    version: str
    """The version of Colophon."""
    python: str
    """Major and minor version, `3.11`."""
    node: str = ""
    """The address of its machine, if the pool has several."""
    code: str = ""
    """sha256 of Colophon's modules, see `executors.handshake`."""
    libraries: tuple[tuple[str, str], ...] = ()
    """Names and versions of the libraries on which the bytes of outputs depend."""


@dataclass(frozen=True)
class Reply:
    """A worker's answer to one task."""

    outcome: Outcome | None
    """None if the worker raised what no retry mends."""
    defect: str | None
    """The message of what it raised."""
    own_bytes: int
    """Resident memory of the process afterwards, without mapped files."""
    blames_node: bool = False
    """Whether the machine lacks something, so that a worker on another one may do the task."""


def greeting(node: str = "") -> Greeting:
    """Return this process's versions."""
    return Greeting(__version__, ".".join(platform.python_version_tuple()[:2]), node)


def hard_limit(worker_memory_bytes: int | None) -> int | None:
    """Return how many bytes a worker may hold before it ends at once: 2x the limit, at least 512 MiB more than it.

    For example 400 MB -> 937 MB, 2 GB -> 4 GB.
    """
    if worker_memory_bytes is None:
        return None
    return worker_memory_bytes + max(worker_memory_bytes, _MEMORY_SLACK_BYTES)


class WorkerProcess:
    """The worker in each process of a pool."""

    def __init__(self, most_bytes: int | None) -> None:
        """Prepare this process. It ends with `MEMORY_EXIT_CODE` when it holds more than `most_bytes` of its own."""
        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        if most_bytes is not None:
            threading.Thread(target=_end_above, args=(most_bytes,), name="memory", daemon=True).start()
        self._workplace = Workplace()

    def answer(self, task: Task, *, number: int, stage: Callable[[], Stage]) -> Reply:
        """Work on a task; see `Workplace.work`. An exception becomes the reply's defect."""
        try:
            with panics_as_errors():
                outcome = self._workplace.work(task, number=number, stage=stage)
        except ColophonError as error:
            return Reply(None, str(error), _own_bytes(), isinstance(error, NodeError))
        except Exception as error:
            return Reply(None, without_secrets(f"{type(error).__name__}: {error}"), _own_bytes())
        return Reply(outcome, None, _own_bytes())


class Workplace:
    """Holds the worker of the present stage alone, so that models of earlier stages take no memory."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._worker: Worker | None = None

    def work(self, task: Task, *, number: int, stage: Callable[[], Stage]) -> Outcome:
        """Work on a task of the stage with that number; `stage` is called if its worker is not started yet.

        The time that starting takes counts as loading of the task for which it was done.

        Raises:
            Exception: see `attempt`.
        """
        begun = time.perf_counter()
        if self._worker is None or self._number != number:
            self._worker = None
            release_memory()
            self._worker = stage().start()
            self._number = number
        started = time.perf_counter() - begun
        outcome = attempt(self._worker, task)
        if outcome.result is None:
            return outcome
        seconds = {**outcome.result.seconds, "load": outcome.result.seconds.get("load", 0.0) + started}
        return replace(outcome, result=replace(outcome.result, seconds=seconds))


def attempt(worker: Worker, task: Task) -> Outcome:
    """Work on a task. Transient errors are retried with pauses; input that cannot be read becomes the outcome's error.

    Raises:
        Exception: anything else is a defect or a full disk, and ends the run.
    """
    try:
        with panics_as_errors():
            return Outcome(task=task, result=retried(lambda: worker.work(task)))
    except OutputPathError:
        raise
    except (InputError, AnnotatorError, ShardError, PanicError) as error:
        return Outcome(task=task, error=str(error))
    except Exception as error:
        if not is_transient(error):
            raise
        return Outcome(task=task, error=f"{type(error).__name__}: {one_line(error)} (retries exhausted)")


def release_memory() -> None:
    """Return memory that nothing uses to the system: models and batches of an earlier stage."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)


def _own_bytes() -> int:
    """Return resident memory without mapped files: workers share models, and the system can drop their pages."""
    import psutil  # only workers need it, and commands that start none import this module too

    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def _end_above(most_bytes: int) -> None:
    """End the process when it holds more, before the machine has no memory left and ends some other process."""
    while _own_bytes() <= most_bytes:
        time.sleep(_MEMORY_CHECK_SECONDS)
    os._exit(MEMORY_EXIT_CODE)
