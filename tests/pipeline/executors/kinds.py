"""Both executors that have workers, for tests that run on each."""

from __future__ import annotations

import atexit
import functools
import importlib
import os
from unittest import mock

import pytest

from colophon.pipeline.executors.local.pool import LocalPool
from colophon.pipeline.executors.scheduler import Scheduler
from colophon.pipeline.recipe.schema import RaySection

_ON_RAY = [pytest.mark.ray, pytest.mark.xdist_group("ray")]
EXECUTORS = ["local", pytest.param("ray", marks=_ON_RAY)]
"""For `pytest.mark.parametrize`. All tests on Ray run in one process, one after the other."""
SLOW_ON_RAY = ["local", pytest.param("ray", marks=[*_ON_RAY, pytest.mark.slow])]
"""The same, for tests that wait long on Ray, and whose code is that of local workers up to the pool."""


def started_executor(kind: str, config: RaySection, *, num_cpus: int = 4) -> Scheduler:
    """An executor with workers. Ray's are on a cluster of `num_cpus` CPUs that lasts until the tests end."""
    if kind == "local":
        return Scheduler(LocalPool(config), config)
    embedded_cluster(num_cpus)
    pool = importlib.import_module("colophon.pipeline.executors.on_ray.pool")
    return Scheduler(pool.RayPool(config), config)


@functools.cache
def embedded_cluster(num_cpus: int) -> list[str]:
    """Start a cluster on this machine, once. Returns what `connect` logged."""
    cluster = pytest.importorskip("colophon.pipeline.executors.on_ray.cluster")
    lines: list[str] = []
    with mock.patch.dict(os.environ):
        os.environ.pop("RAY_ADDRESS", None)
        cluster.connect(RaySection(num_workers=num_cpus), log=lines.append)
    atexit.register(cluster.disconnect)
    return lines
