"""Following a job: cut connections, silence, interruptions and exit codes, with a stand-in for Ray's client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from colophon.pipeline.errors import StoppedError, UsageError
from colophon.pipeline.executors.on_ray import job_submission
from colophon.shards.common.errors import ColophonError, ExitCode
from tests.pipeline.servers import files_serving

COMMANDS = (
    "Follow it: ray job logs --follow raysubmit_1 --address http://head:8265. "
    "Stop it: ray job stop raysubmit_1 --address http://head:8265"
)
HANG = object()


class Client:
    """A job server that answers each connection with a list: texts, errors to raise, and the end of the connection."""

    def __init__(self, *connections: list[Any], **info: Any) -> None:
        self.connections = list(connections)
        self.info = {"status": "SUCCEEDED", "driver_exit_code": None, "message": None, **info}

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for text in self.connections.pop(0):
            if text is HANG:
                await asyncio.Event().wait()
            if isinstance(text, BaseException):
                raise text
            yield text

    def get_job_info(self, job: str) -> Any:
        return SimpleNamespace(**{**self.info, **({"status": "RUNNING"} if self.connections else {})})


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of a follower, which take no time."""
    taken: list[float] = []
    monkeypatch.setattr(job_submission.time, "sleep", taken.append)
    return taken


def follow(*connections: list[Any], log: Callable[[str], None] = lambda text: None, **info: Any) -> int:
    job = job_submission.Job(Client(*connections, **info), "raysubmit_1", "http://head:8265")
    return int(job_submission.follow_job(job, log=log))


def test_output_is_passed_once_whatever_is_cut(pauses: list[float]) -> None:
    texts: list[str] = []
    error = RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
    connections = (
        ["a\n", "bc", error],
        [ConnectionRefusedError(111, "refused")],
        ["a\nb", "cd\n"],
        ["a\nbcd\n", "e\n"],
    )
    assert follow(*connections, log=texts.append) == 0
    cut = "submit: the connection is cut; waiting for http://head:8265\n"
    assert texts == ["a\n", "bc", cut, "d\n", "e\n"]
    assert pauses == [1.0, 2.0, 1.0]


def test_a_silent_connection_is_opened_again(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_submission, "_SILENT_SECONDS", 0.01)
    texts: list[str] = []
    assert follow(["a", HANG], ["ab"], log=texts.append) == 0
    assert texts == ["a", "b"]


def test_a_server_that_stays_away_is_left_with_the_commands(pauses: list[float]) -> None:
    with pytest.raises(ColophonError) as lost:
        follow(*[[ConnectionRefusedError("nobody listens")]] * 8)
    assert str(lost.value) == (
        "submit: lost the connection to http://head:8265: nobody listens. "
        f"Job raysubmit_1 continues without it. {COMMANDS}"
    )
    assert lost.value.exit_code == ExitCode.FAILED
    assert sum(pauses) == 120


def test_an_interruption_leaves_the_job_and_names_the_commands() -> None:
    with pytest.raises(StoppedError) as stopped:
        follow(["a", KeyboardInterrupt()])
    assert str(stopped.value) == f"submit: interrupted; job raysubmit_1 continues. {COMMANDS}"
    assert stopped.value.exit_code == ExitCode.INTERRUPTED


@pytest.mark.parametrize(("status", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("FAILED", 2), ("FAILED", 3)])
def test_the_exit_code_is_the_jobs(status: str, code: int) -> None:
    assert follow([], status=status, driver_exit_code=code) == code


@pytest.mark.parametrize(
    ("info", "outcome"),
    [
        ({"status": "STOPPED", "driver_exit_code": -15}, "was stopped: Ray states no reason"),
        ({"status": "FAILED", "driver_exit_code": -9, "message": "exit code -9\nlog"}, "failed: exit code -9"),
        ({"status": "FAILED", "driver_exit_code": 137, "message": "exit code 137"}, "failed: exit code 137"),
        ({"status": "FAILED", "message": "runtime_env setup failed"}, "failed: runtime_env setup failed"),
    ],
)
def test_a_job_without_an_exit_code_is_an_error_with_its_reason(info: dict[str, Any], outcome: str) -> None:
    with pytest.raises(ColophonError) as failed:
        follow([], **info)
    assert str(failed.value) == f"submit: job raysubmit_1 {outcome}. The same command again resumes the run"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"version": 4}'])
def test_a_server_that_is_not_rays_is_named(body: bytes, tmp_path: Path) -> None:
    files = {"api/version": body}
    with files_serving(files, sends_parts=False) as server, pytest.raises(UsageError) as failed:
        job_submission.send_job("true", address=server, working_dir=tmp_path, variables={}, requirements=[])
    assert str(failed.value) == (
        f"submit: no Ray job server at {server}: it answers, but not as Ray does. "
        "Set --address to that of the cluster's dashboard, http://HOST:8265"
    )
