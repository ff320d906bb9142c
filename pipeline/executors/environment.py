"""The environment of worker processes. Importing it loads no library."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

WORKER_ENVIRONMENT = {
    # One process a core: libraries must not start threads of their own on top.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
    **dict.fromkeys(("RAYON_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
    # Arrow's allocator returns freed memory to the system after a second. With its default delay it kept up to 75 MB
    # of batches that were long done with; without a delay reading took twice the time.
    "MIMALLOC_PURGE_DELAY": "1000",
}
"""Environment variables of a worker's process. They must be set before it imports a library."""


@contextmanager
def worker_environment(**more: str) -> Iterator[None]:
    """Set `WORKER_ENVIRONMENT` and `more` for processes that the block starts; this process's values are restored."""
    values = {**WORKER_ENVIRONMENT, **more}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
