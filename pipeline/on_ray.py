"""Ray, and nothing but Ray: a pool of actors, one process a core, and jobs sent to a cluster.

The driver keeps what must not be lost: which tasks wait, which run where and since when. An actor that dies or hangs is
replaced and its tasks are tried again; what a task did before it died does not matter, because only commits count.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Read when ray is imported. Nothing is reported anywhere; a cluster's token is used where this user has one.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray's processes look for sockets of others again after 10 ms, for 30 s: who was too early slept a second.
os.environ.setdefault("RAY_raylet_client_connect_timeout_milliseconds", "10")
os.environ.setdefault("RAY_raylet_client_num_connect_attempts", "3000")
_TOKEN_FILE = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
if os.environ.get("RAY_AUTH_TOKEN") or _TOKEN_FILE.is_file():
    os.environ.setdefault("RAY_AUTH_MODE", "token")

import psutil
import ray
from ray._private import parameter, ray_constants, services, state, utils
from ray._raylet import GcsClientOptions  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RayError, RayTaskError

from pipeline.errors import ColophonError, UsageError
from pipeline.recipe import RaySection
from pipeline.work import WORKER_ENVIRONMENT, Executor, Outcome, Stage, Task, Workplace

_IN_FLIGHT = 2  # one is worked on while the next one's arguments travel
_LOCAL_OBJECT_STORE_BYTES = 100 << 20  # tasks and records are small; texts never pass through Ray
_LOOK_EVERY_SECONDS = 0.02
_LOOK_AT_NODES_SECONDS = 5.0
_GET_SECONDS = 60.0  # for what is ready, and small; it may still be on a node that has just died
_WATCH_MEMORY_SECONDS = 0.2
_MEMORY_SLACK_BYTES = 512 << 20
_START_SECONDS = 30.0
_TOKEN_HELP = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with it"


def connect(config: RaySection, *, log: Callable[[str], None]) -> None:
    """Attach to the cluster that `RAY_ADDRESS` or the recipe names, or start one on this machine's loopback.

    Raises:
        UsageError: no cluster answers at the address.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS") or config.address
    try:
        if address:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            log(f"ray: attached to {address}, {_num_cpus()} CPUs")
        else:
            _start_local(config)
            log(f"ray: started on this machine, {_num_cpus()} workers")
    except AuthenticationError as error:
        raise UsageError(f"ray: the cluster at {address} asks for a token: {_TOKEN_HELP}") from error
    except (ConnectionError, RayError, ValueError, RuntimeError) as error:
        raise UsageError(f"ray: no cluster at {address}: {str(error).splitlines()[0]}") from error


def _start_local(config: RaySection) -> None:
    # Ray's own switch for clusters of one machine, its default on macOS: the node's address is loopback.
    ray_constants.ENABLE_RAY_CLUSTER = False
    # Processes that Ray starts ahead of the actors import numpy before an actor could set anything.
    with _environment({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **WORKER_ENVIRONMENT}), _few_processes():
        ray.init(
            num_cpus=config.num_workers or os.cpu_count() or 1,
            num_gpus=0,  # else it looks for them
            include_dashboard=False,
            object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started meanwhile; this process's own are put back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _few_processes() -> Iterator[None]:
    """A cluster of this machine alone needs no autoscaler and no dashboard, and nobody follows its logs or metrics.

    170 MB and two seconds less. Ray has no public switch for all of that; a Ray without these names starts them all.
    """
    with ExitStack() as undo:
        for module, name, instead in (
            (
                parameter,
                "RayParams",
                functools.partial(parameter.RayParams, no_monitor=True, include_log_monitor=False),
            ),
            (services, "start_api_server", lambda *_, **__: (None, None)),  # as if it had failed to start
            (services, "get_node", functools.partial(_found_soon, vars(services).get("get_node"))),
            (ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", False),  # workers have this process's environment anyway
            (utils, "get_dashboard_dependency_error", lambda: ImportError("left out")),  # as if ray had no [default]
        ):
            if hasattr(module, name):
                undo.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, instead)
        yield


def _found_soon(get_node: Callable[[str, str], Any], gcs_address: str, node_id: str) -> Any:
    """What `get_node` returns, which looks for the node once a second, called when the node is there.

    Raises:
        RuntimeError: it is not there after `_START_SECONDS`.
    """
    known = state.GlobalState()
    known._initialize_global_state(GcsClientOptions.create(gcs_address, None, True, False))
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and all(node["NodeID"] != node_id for node in known.node_table()):
        time.sleep(_LOOK_EVERY_SECONDS)
    return get_node(gcs_address, node_id)


def _num_cpus() -> int:
    return max(int(ray.cluster_resources().get("CPU", 1)), 1)


def disconnect() -> None:
    """Leave the cluster; one that `connect` started ends."""
    ray.shutdown()


class _Actor:
    """One process: works on the tasks of one stage after the other."""

    def __init__(self, most_bytes: int | None) -> None:
        # Read when the libraries are first used; a runtime environment of their own would cost each actor seconds.
        os.environ.update(WORKER_ENVIRONMENT)
        if most_bytes is not None:
            threading.Thread(target=_end_above, args=(most_bytes,), name="memory", daemon=True).start()
        import pyarrow as pa

        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        self._workplace = Workplace()

    def ready(self) -> None:
        """Answers when the process is there."""

    def work(self, number: int, stage: list[Any], task: Task) -> tuple[Outcome, int]:
        """The outcome and this process's own resident bytes after it; `stage` holds a reference, got when needed."""
        outcome = self._workplace.work(task, number=number, stage=lambda: ray.get(stage[0]))
        return outcome, _own_bytes()


def _own_bytes() -> int:
    """Resident memory of this process without mapped files: models that all workers share, what the system can drop."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def _end_above(most_bytes: int) -> None:
    """End the process when it holds more: before the machine has none left, and some other process is killed for it."""
    while _own_bytes() <= most_bytes:
        time.sleep(_WATCH_MEMORY_SECONDS)
    os._exit(1)


@dataclass
class _Slot:
    """An actor and the tasks that it has, in the order in which it works on them."""

    actor: Any
    starting: Any
    """Resolves when the actor is there; None from then on. On a cluster that has lost a node it may wait for long."""
    tasks: dict[Any, Task] = field(default_factory=dict)
    busy_since: float = 0.0
    retiring: bool = False

    def is_overdue(self, limit: float) -> bool:
        """Whether its first task has taken more than `limit` seconds, as far as is known."""
        return bool(self.tasks) and time.monotonic() - self.busy_since > limit


class RayExecutor(Executor):
    """Runs tasks on actors of the connected cluster, largest partitions first; all stages on the same actors.

    As a context manager it ends its actors.
    """

    def __init__(self, config: RaySection) -> None:
        """Start nothing yet."""
        self._config = config
        self._slots: list[_Slot] = []
        self._num_stages = 0

    def ready(self, num_tasks: int) -> None:
        """Start as many actors as there are workers or tasks, and wait for the first one."""
        wanted = min(self._config.num_workers or _num_cpus(), num_tasks)
        new = [self._new_slot() for _ in range(wanted - len(self._slots))]
        self._slots += new
        if new:
            ray.wait([slot.starting for slot in new], num_returns=1)

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Outcomes as they finish.

        Raises:
            ColophonError: a worker raised what no retry mends (a full disk, a defect).
        """
        if not tasks:
            return
        self.ready(len(tasks))
        self._num_stages += 1
        work = _StageRun(self, self._num_stages, stage, tasks)
        try:
            yield from work.outcomes()
        except BaseException:  # also when nobody wants more: what is in flight must not meet the next stage
            self.close()
            raise

    @property
    def config(self) -> RaySection:
        """How many actors, how large, and how often a task is tried."""
        return self._config

    @property
    def slots(self) -> Sequence[_Slot]:
        """The actors."""
        return tuple(self._slots)

    def swap(self, slot: _Slot) -> None:
        """A new actor in the place of one that is gone or is to go."""
        with suppress(RayError):
            ray.kill(slot.actor)
        self._slots[self._slots.index(slot)] = self._new_slot()

    def close(self) -> None:
        """End all actors."""
        for slot in self._slots:
            with suppress(RayError):
                ray.kill(slot.actor)
        self._slots = []

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _new_slot(self) -> _Slot:
        options: dict[str, Any] = {"num_cpus": 1}
        limit = self._config.worker_memory_bytes
        most_bytes = None
        if limit is not None:
            options["memory"], most_bytes = limit, limit + max(limit, _MEMORY_SLACK_BYTES)
        actor = ray.remote(**options)(_Actor).remote(most_bytes)
        return _Slot(actor, starting=actor.ready.remote())


class _StageRun:
    """The tasks of one stage: which wait, which run where and since when."""

    def __init__(self, executor: RayExecutor, number: int, stage: Stage, tasks: Sequence[Task]) -> None:
        # Largest first, so that no worker is left alone with a large partition at the end.
        self._waiting = deque(sorted(tasks, key=lambda task: -task.partition.bytes))
        self._attempts = dict.fromkeys((task.partition.name for task in tasks), 0)
        self._executor = executor
        self._config = executor.config
        self._number = number
        self._stage = [ray.put(stage)]  # in a list: Ray would hand the stage itself over with every task
        self._failed_starts = 0

    def outcomes(self) -> Iterator[Outcome]:
        """Every task's outcome, once.

        Raises:
            ColophonError: a worker raised what no retry mends, or none can be started.
        """
        while self._waiting or any(slot.tasks for slot in self._executor.slots):
            self._fill()
            starting = [slot.starting for slot in self._executor.slots if slot.starting is not None]
            running = [ref for slot in self._executor.slots for ref in slot.tasks]
            ready, _ = ray.wait(starting + running, timeout=self._patience())
            if not ready:
                _check_nodes()
            for ref in ready:
                slot = next((s for s in self._executor.slots if ref in s.tasks or ref == s.starting), None)
                if slot is None:  # taken together with another task of its actor
                    continue
                if slot.starting is not None:
                    self._started(slot)
                else:
                    yield from self._collect(slot)
            yield from self._kill_overdue()

    def _started(self, slot: _Slot) -> None:
        try:
            ray.get(slot.starting)
        except RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= self._config.max_attempts:
                raise ColophonError(f"ray: no worker can be started: {_died(error)}") from error
            self._executor.swap(slot)
        else:
            self._failed_starts = 0
            slot.starting = None

    def _fill(self) -> None:
        """Hand out waiting tasks: first one to every actor that is there, then the next in line."""
        there = [slot for slot in self._executor.slots if slot.starting is None and not slot.retiring]
        for depth in range(1, _IN_FLIGHT + 1):
            for slot in there:
                if self._waiting and len(slot.tasks) < depth:
                    if not slot.tasks:
                        slot.busy_since = time.monotonic()
                    task = self._waiting.popleft()
                    slot.tasks[slot.actor.work.remote(self._number, self._stage, task)] = task

    def _collect(self, slot: _Slot) -> Iterator[Outcome]:
        """What an actor has done, in the order in which it works: Ray may tell of a later task, or its death, first."""
        while slot.tasks:
            ref = next(iter(slot.tasks))
            if not ray.wait([ref], timeout=0)[0]:
                return
            try:
                outcome, own_bytes = ray.get(ref, timeout=_GET_SECONDS)
            except RayTaskError as error:
                cause = error.cause
                named = isinstance(cause, ColophonError)
                raise ColophonError(str(cause) if named else f"{type(cause).__name__}: {cause}") from error
            except RayError as error:  # the actor, its node or its environment: not what the work is
                yield from self._replace(slot, reason=_died(error))
                return
            del slot.tasks[ref]
            slot.busy_since = time.monotonic()
            limit = self._config.worker_memory_bytes
            slot.retiring |= limit is not None and own_bytes > limit
            if slot.retiring and not slot.tasks:
                self._executor.swap(slot)
            yield outcome

    def _replace(self, slot: _Slot, *, reason: str) -> Iterator[Outcome]:
        """The actor is gone: its first task that is not done is blamed, the others only wait again."""
        tasks = list(slot.tasks.values())
        slot.tasks.clear()
        self._executor.swap(slot)
        blamed = tasks[0]
        self._attempts[blamed.partition.name] += 1
        self._waiting.extendleft(tasks[1:])
        if self._attempts[blamed.partition.name] >= self._config.max_attempts:
            yield Outcome(task=blamed, error=f"{reason} ({self._config.max_attempts} attempts)")
        else:
            self._waiting.append(blamed)

    def _patience(self) -> float:
        """Seconds until the next running task is overdue, or it is time to look whether there still is a cluster."""
        limit = self._config.partition_timeout_seconds
        begun = [slot.busy_since for slot in self._executor.slots if slot.tasks]
        if limit is None or not begun:
            return _LOOK_AT_NODES_SECONDS
        return min(max(min(begun) + limit - time.monotonic(), 0.01), _LOOK_AT_NODES_SECONDS)

    def _kill_overdue(self) -> Iterator[Outcome]:
        limit = self._config.partition_timeout_seconds
        if limit is None:
            return
        for slot in self._executor.slots:
            if slot.is_overdue(limit):
                yield from self._collect(slot)  # it may be done, while whoever takes the outcomes took their time
            if slot.is_overdue(limit):
                yield from self._replace(slot, reason=f"took longer than {limit:g} seconds")


def _check_nodes() -> None:
    """Actors of a cluster that is no more would be waited for without end.

    Raises:
        ColophonError: no node is alive.
    """
    if not any(node["Alive"] for node in ray.nodes()):
        raise ColophonError("ray: no node of the cluster is alive; run the same command again to go on")


def _died(error: RayError) -> str:
    """Ray's account without its line breaks: the first line names the kind, the next ones the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "worker died: " + (" ".join(lines)[:300] if lines else type(error).__name__)


def submit_job(
    entrypoint: str, *, address: str, working_dir: Path, requirements: list[str], log: Callable[[str], None]
) -> int:
    """Run a command on a cluster through Ray's job API, hand its log lines to `log`, and return its exit code.

    Args:
        entrypoint: the shell command.
        address: of the job server, `http://HOST:8265`.
        working_dir: uploaded; the command runs in it, and its packages are importable.
        requirements: what pip installs for the job; none if empty.
        log: gets the job's output as it comes.

    Raises:
        UsageError: no job server answers at the address.
    """
    import asyncio

    from ray.job_submission import JobSubmissionClient

    runtime_env: dict[str, Any] = {"working_dir": str(working_dir), "excludes": _NOT_UPLOADED}
    if requirements:
        runtime_env["pip"] = {"packages": requirements, "pip_check": False}
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env)
    except AuthenticationError as error:
        raise UsageError(f"submit: the cluster at {address} asks for a token: {_TOKEN_HELP}") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"submit: no Ray job server at {address}: {str(error).splitlines()[0]}") from error

    async def follow() -> None:
        async for text in client.tail_job_logs(job):
            log(text)

    asyncio.run(follow())
    info = client.get_job_info(job)
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    return 0 if str(info.status) == "SUCCEEDED" else 1


_NOT_UPLOADED = [".git", ".venv", "out", "models", "**/__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"]
