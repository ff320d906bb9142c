"""Local processes: how their ends are reported, and what cannot be sent to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from colophon.pipeline.executors.local import pool as module
from colophon.pipeline.executors.local.pool import LocalPool
from colophon.pipeline.executors.pool import Died, Event, Started
from colophon.pipeline.executors.scheduler import Scheduler
from colophon.pipeline.recipe.schema import RaySection
from colophon.pipeline.stages.tasks import Task, TaskResult
from colophon.shards.common.errors import ColophonError
from tests.pipeline.executors.fake_pool import NoStage, task


def exits_at_once(*_: object) -> None:
    """In the place of `serve`."""
    os._exit(7)


def test_workers_that_end_while_they_start_end_the_run_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "serve", exits_at_once)
    config = RaySection(num_workers=2, max_attempts=3)
    message = r"local: no worker can be started: worker died: exit code 7 \(\d attempts\)"
    with pytest.raises(ColophonError, match=message), Scheduler(LocalPool(config), config) as executor:
        executor.ready(2)


def test_a_fork_server_that_refuses_is_a_failed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: object) -> None:
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(module.CONTEXT.Process, "start", refused)
    pool = LocalPool(RaySection(num_workers=1))
    worker = pool.start()
    assert pool.wait(5) == [Died(worker, "worker died: ConnectionRefusedError nobody listens")]
    assert pool.wait(0) == []


def test_the_fork_server_starts_where_paths_are_too_long_for_a_socket(tmp_path: Path) -> None:
    """In a process of its own, since a server that runs is not started again."""
    long = tmp_path / ("long" * 30)
    long.mkdir()
    code = (
        "from colophon.pipeline.executors.local import fork_server; fork_server._WORKER_MODULE = 'json'\n"
        "import tempfile; fork_server.start_fork_server()\n"
        "process = fork_server.CONTEXT.Process(target=print, args=('forked',)); process.start(); process.join()\n"
        "print(process.exitcode, tempfile.gettempdir())\n"
    )
    environment = {**os.environ, "TMPDIR": str(long)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["forked", "0", str(long)], "")


def first_event(pool: LocalPool) -> Event:
    while not (events := pool.wait(60)):
        pass
    return events[0]


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda process: process.kill(), "worker died: ended by SIGKILL"),
        (lambda process: process.send_signal(signal.SIGTERM), "worker died: ended by SIGTERM"),
    ],
)
def test_the_end_of_a_worker_is_reported_with_its_signal(end: Callable[[psutil.Process], None], reason: str) -> None:
    pool = LocalPool(RaySection(num_workers=1))
    try:
        worker = pool.start()
        assert isinstance(first_event(pool), Started)
        end(psutil.Process(pool._processes[worker].process.pid))
        assert first_event(pool) == Died(worker, reason)
    finally:
        pool.close()


def test_a_task_sent_to_a_worker_that_is_gone_raises_nothing() -> None:
    pool = LocalPool(RaySection(num_workers=1))
    try:
        pool.open(NoStage())
        worker = pool.start()
        assert isinstance(first_event(pool), Started)
        process = psutil.Process(pool._processes[worker].process.pid)
        process.kill()
        psutil.wait_procs([process], timeout=30)
        pool.send(worker, task("a"))
        pool.send(worker, task("b"))
        assert first_event(pool) == Died(worker, "worker died: ended by SIGKILL")
    finally:
        pool.close()


def test_a_stage_that_cannot_be_pickled_is_one_error() -> None:
    stage = NoStage()
    stage.held = lambda: None  # type: ignore[attr-defined]
    with pytest.raises(ColophonError, match="local: the stage no stage cannot be sent to a process: "):
        LocalPool(RaySection()).open(stage)


@dataclass(frozen=True)
class Noisy:
    """A stage whose worker prints in all ways."""

    name: str = "noisy"

    def start(self) -> Noisy:
        return self

    def work(self, task: Task) -> TaskResult:
        print("\x1b]0;title\x07 of stdout")
        sys.stderr.write("https://e.org/x?sig=pa55word\n")
        os.write(1, b"a library to stdout\r\n")
        os.write(2, b"\xff a library to stderr, https://user:pa55")
        os.write(2, b"word@e.org/ in two parts\n" + b"long" * 50_000 + b"\nwithout an end")
        return TaskResult(records=(), documents=1, text_bytes=1)


def test_what_workers_print_goes_to_stderr_escaped_and_masked(capfd: pytest.CaptureFixture[str]) -> None:
    config = RaySection(num_workers=1)
    with Scheduler(LocalPool(config), config) as executor:
        assert [outcome.error for outcome in executor.run(Noisy(), [task("a")])] == [None]
    out, err = capfd.readouterr()
    assert out == ""
    assert "\\x1b]0;title\\x07 of stdout\n" in err
    assert "a library to stdout\\r\n" in err
    assert "\ufffd a library to stderr, https://***@e.org/ in two parts\n" in err
    assert err.endswith("without an end")
    assert err.count("long") == 50_000
    assert "pa55" not in err
