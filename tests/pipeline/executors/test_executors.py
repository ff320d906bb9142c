"""Both executors with workers: the same bytes as in one process, and what happens when workers die, hang or break."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import signal
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from colophon.pipeline.errors import InputError, UsageError
from colophon.pipeline.executors.environment import WORKER_ENVIRONMENT
from colophon.pipeline.executors.scheduler import Scheduler
from colophon.pipeline.recipe.schema import RaySection
from colophon.pipeline.stages.tasks import Outcome, Task, TaskResult
from colophon.shards.common.errors import ColophonError
from tests.pipeline.executors.fake_pool import task as fake_task
from tests.pipeline.executors.kinds import EXECUTORS, embedded_cluster, started_executor
from tests.pipeline.small_run import run_recipe, write_small_run

pytestmark = [
    # Ray leaves sockets and log files to the end of the process.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MakeExecutor = Callable[[RaySection], Scheduler]


@pytest.fixture(params=EXECUTORS)
def make_executor(request: pytest.FixtureRequest) -> MakeExecutor:
    """Makes executors of each kind that has workers."""
    if request.param == "ray":  # else its actors could not import this module
        pytest.importorskip("colophon.pipeline.executors.on_ray.cluster")  # sets what ray reads when it is imported
        sys.modules["ray"].cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return functools.partial(started_executor, request.param)


@dataclass(frozen=True)
class Misbehaving:
    """A stage whose worker does what the partition's name says, the first time or every time."""

    marks: Path
    name: str = "misbehaving"

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
    return [fake_task(name, size) for size, name in enumerate(names, start=1)]


def run(make: MakeExecutor, marks: Path, *names: str, config: RaySection | None = None) -> dict[str, Outcome]:
    with make(config or RaySection(num_workers=2)) as executor:
        outcomes = list(executor.run(Misbehaving(marks), tasks(*names)))
    assert len(outcomes) == len(names), "every task has exactly one outcome"
    return {outcome.task.partition.name: outcome for outcome in outcomes}


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_the_cluster_lives_on_this_machine() -> None:
    assert embedded_cluster(4) == ["ray: started on this machine, 4 workers"]


def test_workers_write_the_bytes_that_one_process_writes(make_executor: MakeExecutor, tmp_path: Path) -> None:
    recipe = write_small_run(tmp_path)
    inline = run_recipe(recipe, output=tmp_path / "inline")
    with make_executor(RaySection(num_workers=2)) as executor:
        on_workers = run_recipe(recipe, output=tmp_path / "workers", executor=executor)
    assert len(inline) > 10
    assert on_workers == inline


def test_all_tasks_are_done_when_nothing_goes_wrong(make_executor: MakeExecutor, tmp_path: Path) -> None:
    outcomes = run(make_executor, tmp_path, *(f"good-{i}" for i in range(9)))
    assert all(outcome.result is not None and outcome.result.documents == 1 for outcome in outcomes.values())


def test_a_partition_whose_worker_died_is_tried_again(make_executor: MakeExecutor, tmp_path: Path) -> None:
    outcomes = run(make_executor, tmp_path, "good-1", "dies-once", "good-2", "good-3")
    assert all(outcome.result is not None for outcome in outcomes.values())
    assert len(list(tmp_path.glob("dies-once.*"))) == 2


def test_a_partition_that_kills_every_worker_is_given_up_and_the_rest_is_done(
    make_executor: MakeExecutor, tmp_path: Path
) -> None:
    config = RaySection(num_workers=2, max_attempts=2)
    outcomes = run(make_executor, tmp_path, "good-1", "good-2", "dies-always", "good-3", "good-4", config=config)
    failed = outcomes.pop("dies-always")
    assert failed.error is not None
    assert failed.error.startswith("worker died") and failed.error.endswith("(2 attempts)")
    assert all(outcome.result is not None for outcome in outcomes.values())


def test_work_that_was_done_before_a_worker_died_is_not_blamed(make_executor: MakeExecutor, tmp_path: Path) -> None:
    """The worker dies after its first answer has arrived: Ray may lose an answer that a process gave just before."""
    outcomes: dict[str, Outcome] = {}
    with make_executor(RaySection(num_workers=1, max_attempts=2)) as executor:
        for outcome in executor.run(Misbehaving(tmp_path), tasks("dies-always-later", "good-1")):
            outcomes[outcome.task.partition.name] = outcome
            (tmp_path / "now").touch()
    assert outcomes["good-1"].result is not None
    assert len(list(tmp_path.glob("good-1.*"))) == 1
    assert outcomes["dies-always-later"].error is not None
    assert len(list(tmp_path.glob("dies-always-later.*"))) == 2


def test_a_worker_that_hangs_is_killed_and_replaced(make_executor: MakeExecutor, tmp_path: Path) -> None:
    config = RaySection(num_workers=2, partition_timeout_seconds=5)
    outcomes = run(make_executor, tmp_path, "good-1", "hangs-once", config=config)
    assert all(outcome.result is not None for outcome in outcomes.values())
    assert len(list(tmp_path.glob("hangs-once.*"))) == 2


def test_an_unreadable_partition_is_an_outcome(make_executor: MakeExecutor, tmp_path: Path) -> None:
    outcomes = run(make_executor, tmp_path, "good-1", "unreadable")
    assert outcomes["unreadable"].error == "a reason"
    assert outcomes["good-1"].result is not None


def test_a_defect_ends_the_run_and_says_what_it_was(make_executor: MakeExecutor, tmp_path: Path) -> None:
    with pytest.raises(ColophonError, match="RuntimeError: something nobody expected"):
        run(make_executor, tmp_path, "good-1", "defect")


def test_a_worker_that_has_grown_is_replaced(make_executor: MakeExecutor, tmp_path: Path) -> None:
    """With a limit of one byte every worker has outgrown it after its first partition."""
    config = RaySection(num_workers=1, worker_memory_bytes=1)
    outcomes = run(make_executor, tmp_path, *(f"good-{i}" for i in range(4)), config=config)
    assert all(outcome.result is not None for outcome in outcomes.values())
    processes = {mark.suffix for mark in tmp_path.glob("good-*")}
    assert len(processes) > 1


@dataclass(frozen=True)
class Reporting:
    """A stage whose worker reports its process, the living workers of earlier stages, and its thread counts."""

    name: str

    def start(self) -> ReportingWorker:
        return ReportingWorker(self.name)


class ReportingWorker:
    living: ClassVar[weakref.WeakSet[ReportingWorker]] = weakref.WeakSet()

    def __init__(self, name: str) -> None:
        self.name = name
        ReportingWorker.living.add(self)

    def work(self, task: Task) -> TaskResult:
        workers = sorted(worker.name for worker in ReportingWorker.living)
        reports = {"process": os.getpid(), "workers": workers, "environment": dict(os.environ), "threads": threads()}
        Path(task.partition.url).write_text(json.dumps(reports))
        return TaskResult(records=(), documents=1, text_bytes=1)


def threads() -> dict[str, int]:
    """How many threads each library would use in this process, by its own account."""
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


def reports_of(executor: Any, directory: Path, *names: str) -> list[dict[str, Any]]:
    """Return the reports of the workers of some stages, two tasks each."""
    reports = []
    for name in names:
        files = [str(directory / f"{name}-{i}.json") for i in range(2)]
        outcomes = list(executor.run(Reporting(name), tasks(*files)))
        assert all(outcome.result is not None and "load" in outcome.result.seconds for outcome in outcomes)
        reports += [{"stage": name, **json.loads(Path(file).read_text())} for file in files]
    return reports


def test_all_stages_run_in_the_same_processes_which_keep_no_worker_of_an_earlier_stage(
    make_executor: MakeExecutor, tmp_path: Path
) -> None:
    with make_executor(RaySection(num_workers=1)) as executor:
        reports = reports_of(executor, tmp_path, "first", "second", "third")
    assert len({entry["process"] for entry in reports}) == 1
    assert [entry["workers"] for entry in reports] == [[entry["stage"]] for entry in reports]


def test_a_worker_has_one_thread_of_each_library_and_the_driver_keeps_its_own(
    make_executor: MakeExecutor, tmp_path: Path
) -> None:
    before = dict(os.environ)
    with make_executor(RaySection(num_workers=2)) as executor:
        reports = reports_of(executor, tmp_path, "stage")
    for entry in reports:
        assert WORKER_ENVIRONMENT.items() <= entry["environment"].items()
        assert entry["environment"]["RAYON_NUM_THREADS"] == entry["environment"]["OMP_NUM_THREADS"] == "1"
        assert entry["environment"]["TOKENIZERS_PARALLELISM"] == "false"
        assert set(entry["threads"].values()) == {1}, entry["threads"]
    assert dict(os.environ) == before


def test_a_stage_after_one_that_failed_starts_afresh(make_executor: MakeExecutor, tmp_path: Path) -> None:
    with make_executor(RaySection(num_workers=1)) as executor:
        with pytest.raises(ColophonError, match="nobody expected"):
            list(executor.run(Misbehaving(tmp_path), tasks("good-1", "defect", "good-2")))
        reports = reports_of(executor, tmp_path, "next")
    assert [entry["workers"] for entry in reports] == [["next"]] * 2


def test_only_as_many_processes_as_tasks_are_started(make_executor: MakeExecutor) -> None:
    with make_executor(RaySection(num_workers=2)) as executor:
        executor.ready(1)
        assert executor.num_workers == 1
        executor.ready(5)
        assert executor.num_workers == 2
        executor.ready(1)
        assert executor.num_workers == 2
    assert not executor.num_workers


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_without_an_address_a_new_cluster_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another cluster may run on the machine, or have crashed and left the file that names it."""
    on_ray = pytest.importorskip("colophon.pipeline.executors.on_ray.cluster")
    asked: dict[str, Any] = {}
    monkeypatch.setattr(on_ray.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(on_ray.ray, "init", lambda **options: asked.update(options))
    node = {"Alive": True, "NodeManagerAddress": "127.0.0.1", "Resources": {"CPU": 3.0}}
    monkeypatch.setattr(on_ray.ray, "nodes", lambda: [node])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    lines: list[str] = []
    on_ray.connect(RaySection(num_workers=3), log=lines.append)
    assert lines == ["ray: started on this machine, 3 workers"]
    wanted = {"address": "local", "num_cpus": 3, "num_gpus": 0, "include_dashboard": False}
    assert wanted.items() <= asked.items()


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_an_address_where_nobody_answers_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    on_ray = pytest.importorskip("colophon.pipeline.executors.on_ray.cluster")
    monkeypatch.setattr(on_ray.ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match="no cluster at not-an-address"):
        on_ray.connect(RaySection(address="not-an-address"), log=lambda line: None)
