"""Fixtures of all tests: hypothesis profiles, a cache per session, the data beside the checkout."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from colophon.pipeline.executors.cpus import num_cpus_here

settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", parent=settings.get_profile("ci"), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's low priority workers wait for the tests beside them

_MEMORY, _NEEDED_BYTES = Path("/dev/shm"), 12_000_000_000
if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _NEEDED_BYTES:
    # Commits are flushed to the disk, for which tests would wait a third of their time. Memory needs no flush.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: tests of clusters and commands wait for other processes at times."""
    return num_cpus_here() + 1


_frozen_modules = 0


def pytest_runtest_setup() -> None:
    """Take the objects of imported modules out of the garbage collections that each pass of a run asks for."""
    global _frozen_modules  # noqa: PLW0603
    if len(sys.modules) > _frozen_modules + 100:
        gc.collect()
        gc.freeze()
        _frozen_modules = len(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Cache tables of models in a directory of this session, also for processes that tests start."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # compiled once for all processes of the session
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLOPHON_CACHE_DIR", str(base / "cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_name_for_each_module() -> Iterator[None]:
    """Check that no module is loaded under two names: `shards.x` and `colophon.shards.x` have two registries."""
    yield
    ours = {"annotators", "pipeline", "recipes", "shards", "trainer"}
    assert {name for name in sys.modules if name.split(".")[0] in ours} == set()
    files = [
        Path(module.__file__).resolve()
        for name, module in sys.modules.items()
        if name.split(".")[0] == "colophon" and module.__file__ is not None
    ]
    assert len(files) == len(set(files)), "a module was loaded under two names"


SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """`../shared/data` beside the checkout; the test is skipped where it is missing. Mark such tests `shared`."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return SHARED_DATA
