"""Work on real Ray: the same bytes as without it, and what happens when workers die, hang or break."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from colophon.pipeline.errors import InputError, UsageError
from colophon.pipeline.executors.worker import WORKER_ENVIRONMENT
from colophon.pipeline.inputs.partitions import Partition
from colophon.pipeline.recipe.schema import RaySection
from colophon.pipeline.stages.tasks import Outcome, Task, TaskResult
from colophon.shards.common.errors import ColophonError
from tests.pipeline.small_run import run_recipe, write_small_run

on_ray = pytest.importorskip("colophon.pipeline.executors.on_ray.pool")
ray = on_ray.ray
pytestmark = [
    pytest.mark.ray,
    pytest.mark.xdist_group("ray"),
    # Ray leaves sockets and log files to the end of the process.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[str]]:
    """An embedded cluster of two workers; the value is what `connect` said."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        on_ray.connect(RaySection(num_workers=2), log=said.append)
        yield said
        on_ray.disconnect()


@dataclass(frozen=True)
class Misbehaving:
    """A stage whose worker does what the partition's name says, the first time or every time."""

    marks: Path
    title: str = "misbehaving"

    def start(self) -> MisbehavingWorker:
        return MisbehavingWorker(self.marks)


class MisbehavingWorker:
    def __init__(self, marks: Path) -> None:
        self._marks = marks

    def work(self, task: Task) -> TaskResult:
        name = task.partition.name
        mark = self._marks / f"{name}.{os.getpid()}"
        mark.touch()
        first_time = len(list(self._marks.glob(f"{name}.*"))) == 1
        while name == "dies-always-later" and not (self._marks / "now").exists():
            os.sched_yield()
        if name.startswith("dies-always") or (name.startswith("dies-once") and first_time):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("hangs-once") and first_time:
            signal.pause()
        if name.startswith("unreadable"):
            raise InputError("a reason")
        if name.startswith("defect"):
            raise RuntimeError("something nobody expected")
        return TaskResult(records=(), documents=1, text_bytes=task.partition.bytes)


def tasks(*names: str) -> list[Task]:
    return [
        Task(
            partition=Partition(
                name=name,
                source=name,
                url=name,
                format="jsonl",
                row_groups=None,
                first_row=0,
                rows=1,
                bytes=size,
                identity=name,
            ),
            outputs={"out": "fingerprint"},
        )
        for size, name in enumerate(names, start=1)
    ]


def run(marks: Path, *names: str, config: RaySection | None = None) -> dict[str, Outcome]:
    with on_ray.RayExecutor(config or RaySection(num_workers=2)) as executor:
        outcomes = list(executor.run(Misbehaving(marks), tasks(*names)))
    assert len(outcomes) == len(names), "every task has exactly one outcome"
    return {outcome.task.partition.name: outcome for outcome in outcomes}


def test_the_cluster_lives_on_loopback(cluster: list[str]) -> None:
    assert cluster == ["ray: started on this machine, 2 workers"]
    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]


def test_ray_writes_the_bytes_that_one_process_writes(cluster: list[str], tmp_path: Path) -> None:
    recipe = write_small_run(tmp_path)
    inline = run_recipe(recipe, output=tmp_path / "inline")
    with on_ray.RayExecutor(RaySection(num_workers=2)) as executor:
        on_workers = run_recipe(recipe, output=tmp_path / "ray", executor=executor)
    assert len(inline) > 10
    assert on_workers == inline


def test_all_tasks_are_done_when_nothing_goes_wrong(cluster: list[str], tmp_path: Path) -> None:
    outcomes = run(tmp_path, *(f"good-{i}" for i in range(9)))
    assert all(outcome.result is not None and outcome.result.documents == 1 for outcome in outcomes.values())


def test_a_partition_whose_worker_died_is_tried_again(cluster: list[str], tmp_path: Path) -> None:
    outcomes = run(tmp_path, "good-1", "dies-once", "good-2", "good-3")
    assert all(outcome.result is not None for outcome in outcomes.values())
    assert len(list(tmp_path.glob("dies-once.*"))) == 2


def test_a_partition_that_kills_every_worker_is_given_up_and_the_rest_is_done(
    cluster: list[str], tmp_path: Path
) -> None:
    config = RaySection(num_workers=2, max_attempts=2)
    outcomes = run(tmp_path, "good-1", "good-2", "dies-always", "good-3", "good-4", config=config)
    failed = outcomes.pop("dies-always")
    assert failed.error is not None
    assert failed.error.startswith("worker died") and failed.error.endswith("(2 attempts)")
    assert all(outcome.result is not None for outcome in outcomes.values())


def test_work_that_was_done_before_a_worker_died_is_not_blamed(
    cluster: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = ray.wait

    def told_late_and_in_reverse(refs: list[Any], **options: Any) -> tuple[list[Any], list[Any]]:
        wait(refs, **options)
        if list(tmp_path.glob("good-1.*")):  # only now: the answer of what is done must not die with the process
            (tmp_path / "now").touch()
        ready, others = wait(refs, **{"num_returns": len(refs), **options})
        return ready[::-1], others

    monkeypatch.setattr(ray, "wait", told_late_and_in_reverse)
    outcomes = run(tmp_path, "dies-always-later", "good-1", config=RaySection(num_workers=1, max_attempts=2))
    assert outcomes["good-1"].result is not None
    assert len(list(tmp_path.glob("good-1.*"))) == 1
    assert outcomes["dies-always-later"].error is not None
    assert len(list(tmp_path.glob("dies-always-later.*"))) == 2


def test_a_worker_that_hangs_is_killed_and_its_partition_tried_again(cluster: list[str], tmp_path: Path) -> None:
    config = RaySection(num_workers=2, partition_timeout_seconds=5)
    outcomes = run(tmp_path, "good-1", "hangs-once", config=config)
    assert all(outcome.result is not None for outcome in outcomes.values())
    assert len(list(tmp_path.glob("hangs-once.*"))) == 2


def test_an_unreadable_partition_is_an_outcome(cluster: list[str], tmp_path: Path) -> None:
    outcomes = run(tmp_path, "good-1", "unreadable")
    assert outcomes["unreadable"].error == "a reason"
    assert outcomes["good-1"].result is not None


def test_a_defect_ends_the_run_and_says_what_it_was(cluster: list[str], tmp_path: Path) -> None:
    with pytest.raises(ColophonError, match="RuntimeError: something nobody expected"):
        run(tmp_path, "good-1", "defect")


def test_a_worker_that_has_grown_is_replaced(cluster: list[str], tmp_path: Path) -> None:
    """With a limit of one byte every worker has outgrown it after its first partition."""
    config = RaySection(num_workers=1, worker_memory_bytes=1)
    outcomes = run(tmp_path, *(f"good-{i}" for i in range(4)), config=config)
    assert all(outcome.result is not None for outcome in outcomes.values())
    processes = {mark.suffix for mark in tmp_path.glob("good-*")}
    assert len(processes) > 1


@dataclass(frozen=True)
class Telling:
    """A stage whose worker tells its process, what of it is left of earlier stages' workers, and its thread counts."""

    title: str

    def start(self) -> TellingWorker:
        return TellingWorker(self.name)


class TellingWorker:
    living: ClassVar[weakref.WeakSet[TellingWorker]] = weakref.WeakSet()

    def __init__(self, title: str) -> None:
        self.name = title
        TellingWorker.living.add(self)

    def work(self, task: Task) -> TaskResult:
        workers = sorted(worker.name for worker in TellingWorker.living)
        told = {"process": os.getpid(), "workers": workers, "environment": dict(os.environ), "threads": threads()}
        Path(task.partition.url).write_text(json.dumps(told))
        return TaskResult(records=(), documents=1, text_bytes=1)


def threads() -> dict[str, int]:
    """How many threads each library would use in this process, as it says itself."""
    import numba
    import numpy as np
    import polars as pl

    blas = next((Path(np.__file__).parents[1] / "numpy.libs").glob("*openblas*"), None)  # of numpy's own wheels
    return {
        "arrow": pa.cpu_count(),
        "arrow_io": pa.io_thread_count(),
        "blas": 1 if blas is None else ctypes.CDLL(str(blas)).scipy_openblas_get_num_threads64_(),
        "numba": numba.config.NUMBA_NUM_THREADS,
        "polars": pl.thread_pool_size(),
    }


def told_by(executor: Any, directory: Path, *titles: str) -> list[dict[str, Any]]:
    """What the workers of some stages tell, each over two tasks."""
    told = []
    for title in titles:
        names = [str(directory / f"{title}-{i}.json") for i in range(2)]
        outcomes = list(executor.run(Telling(title), tasks(*names)))
        assert all(outcome.result is not None and "load" in outcome.result.seconds for outcome in outcomes)
        told += [{"stage": title, **json.loads(Path(name).read_text())} for name in names]
    return told


def test_all_stages_run_in_the_same_processes_which_keep_no_worker_of_an_earlier_stage(
    cluster: list[str], tmp_path: Path
) -> None:
    with on_ray.RayExecutor(RaySection(num_workers=1)) as executor:
        told = told_by(executor, tmp_path, "first", "second", "third")
    assert len({entry["process"] for entry in told}) == 1
    assert [entry["workers"] for entry in told] == [[entry["stage"]] for entry in told]


def test_a_worker_has_one_thread_of_each_library_and_the_driver_keeps_its_own(
    cluster: list[str], tmp_path: Path
) -> None:
    before = dict(os.environ)
    with on_ray.RayExecutor(RaySection(num_workers=2)) as executor:
        told = told_by(executor, tmp_path, "stage")
    for entry in told:
        assert WORKER_ENVIRONMENT.items() <= entry["environment"].items()
        assert entry["environment"]["RAYON_NUM_THREADS"] == entry["environment"]["OMP_NUM_THREADS"] == "1"
        assert entry["environment"]["TOKENIZERS_PARALLELISM"] == "false"
        assert set(entry["threads"].values()) == {1}, entry["threads"]
    assert dict(os.environ) == before


def test_a_stage_after_one_that_failed_starts_afresh(cluster: list[str], tmp_path: Path) -> None:
    with on_ray.RayExecutor(RaySection(num_workers=1)) as executor:
        with pytest.raises(ColophonError, match="nobody expected"):
            list(executor.run(Misbehaving(tmp_path), tasks("good-1", "defect", "good-2")))
        told = told_by(executor, tmp_path, "next")
    assert [entry["workers"] for entry in told] == [["next"]] * 2


def test_only_as_many_processes_as_tasks_are_started(cluster: list[str], tmp_path: Path) -> None:
    with on_ray.RayExecutor(RaySection(num_workers=2)) as executor:
        executor.ready(1)
        assert len(executor.slots) == 1
        executor.ready(5)
        assert len(executor.slots) == 2
        executor.ready(1)
        assert len(executor.slots) == 2
    assert not executor.slots


def test_an_address_where_nobody_answers_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match="no cluster at not-an-address"):
        on_ray.connect(RaySection(address="not-an-address"), log=lambda line: None)
