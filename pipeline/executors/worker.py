"""What every stage is: a map over partitions, with one output file and one commit record for each.

A stage is a small picklable description; in a worker process it starts a worker, which holds the stage's models and
turns tasks into records. How workers are run is the executor's business alone.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.abc import MetaPathFinder

import pyarrow as pa

from colophon.annotators.base import AnnotatorError
from colophon.pipeline.errors import InputError, one_line, without_secrets
from colophon.pipeline.retry import is_transient, retried
from colophon.pipeline.stages.tasks import Outcome, Stage, Task, Worker
from colophon.shards.common.errors import ShardError

WORKER_ENVIRONMENT = {
    # One process a core: libraries must not start threads of their own on top.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
    **dict.fromkeys(("RAYON_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
    # Arrow's allocator gives back what is freed after a second, in which the next batch takes it again: it
    # kept up to 75 MB of batches that were long done with, and giving back at once doubled the time of reading.
    "MIMALLOC_PURGE_DELAY": "1000",
}
"""For a worker's process, before it imports a library."""


class Workplace:
    """One process that works for one stage after the other; only the present stage's worker is kept."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._worker: Worker | None = None

    def work(self, task: Task, *, number: int, stage: Callable[[], Stage]) -> Outcome:
        """Work on a task of the stage with that number; `stage` gives it when its worker must be started.

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
            _leave_pandas_out()
        started = time.perf_counter() - begun
        outcome = attempt(self._worker, task)
        if outcome.result is None:
            return outcome
        seconds = {**outcome.result.seconds, "load": outcome.result.seconds.get("load", 0.0) + started}
        return replace(outcome, result=replace(outcome.result, seconds=seconds))


def _leave_pandas_out() -> None:
    """Keep pyarrow from importing pandas when it makes its first array, to see whether that is asked for one of pandas.

    0.3 s and 35 MB a process. `to_pandas` still imports it; where an annotator has imported it, nothing is changed.
    """
    if "pandas" in sys.modules:
        return
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(absent)


class _Absent(MetaPathFinder):
    """Finds no pandas."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ImportError(fullname)


def release_memory() -> None:
    """Give memory that nothing uses back to the system: what an earlier stage's models and batches took."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)


def attempt(worker: Worker, task: Task) -> Outcome:
    """Work on a task: what the network did is tried again with pauses, what the input is becomes an outcome.

    Raises:
        Exception: anything else is a defect or a full disk, and ends the run.
    """
    try:
        return Outcome(task=task, result=retried(lambda: worker.work(task)))
    except (InputError, AnnotatorError, ShardError) as error:
        return Outcome(task=task, error=without_secrets(str(error)))
    except Exception as error:
        if not is_transient(error):
            raise
        return Outcome(task=task, error=f"{type(error).__name__}: {one_line(error)} (retries exhausted)")
