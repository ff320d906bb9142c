"""Commands sent to a cluster through Ray's job API."""

from __future__ import annotations

import asyncio
import logging
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from colophon.pipeline.errors import StoppedError, UsageError, one_line
from colophon.pipeline.executors.on_ray.address import OTHER_JOB_SERVER
from colophon.pipeline.executors.on_ray.cluster import TOKEN_HELP
from colophon.shards.common.errors import ColophonError

_PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Pauses before a job server is called again that does not answer: two minutes, while a head restarts."""
_SILENT_SECONDS = 60.0
"""After this time without output the connection is opened again: a proxy may have dropped it without a word."""
for _handler in logging.getLogger("ray").handlers:
    _handler.setLevel(logging.WARNING)  # each upload and the end of each connection would be shown
_BY_SIGNAL = 128
"""A shell's exit code for a command that a signal ended is this and the signal's number."""
_OVER = ("SUCCEEDED", "FAILED", "STOPPED")


class Job(NamedTuple):
    """A job on a cluster."""

    client: JobSubmissionClient
    id: str
    address: str

    @property
    def commands(self) -> str:
        """How to follow and to stop the job from anywhere."""
        where = f"{self.id} --address {shlex.quote(self.address)}"
        return f"Follow it: ray job logs --follow {where}. Stop it: ray job stop {where}"


def send_job(
    entrypoint: str, *, address: str, working_dir: Path, variables: Mapping[str, str], requirements: list[str]
) -> Job:
    """Upload a directory to a cluster and start a command in it.

    Args:
        entrypoint: the shell command.
        address: the job server's, `http://HOST:8265`.
        working_dir: uploaded whole; the command and all workers run in a copy of it, and its packages are importable.
        variables: environment variables of the command and of all workers.
        requirements: what pip installs for the job.

    Raises:
        UsageError: no job server answers at the address, or it does not take the job.
    """
    runtime_env: dict[str, Any] = {"working_dir": str(working_dir), "env_vars": dict(variables)}
    if requirements:
        runtime_env["pip"] = {"packages": requirements, "pip_check": False}
    try:
        client = JobSubmissionClient(address)
    except AuthenticationError as error:
        raise UsageError(f"submit: the cluster at {address} asks for a token: {TOKEN_HELP}") from error
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        is_other = isinstance(error, (ValueError, LookupError, TypeError))  # no JSON, or other keys
        reason = "it answers, but not as Ray does" if is_other else one_line(error).rstrip(".")
        raise UsageError(f"submit: no Ray job server at {address}: {reason}. {OTHER_JOB_SERVER}") from error
    try:
        return Job(client, client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env), address)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"submit: the cluster at {address} does not take the job: {one_line(error)}") from error


def follow_job(job: Job, *, log: Callable[[str], None]) -> int:
    """Pass the job's output to `log` as it arrives, and return the job's exit code.

    A connection that is cut is opened again, for two minutes; output is not repeated.

    Raises:
        StoppedError: interrupted from the keyboard. The job continues.
        ColophonError: the job server is gone, or the job ended without an exit code.
    """
    try:
        return _exit_code(job, _followed(job, log=log))
    except KeyboardInterrupt:
        message = f"submit: interrupted; job {job.id} continues. {job.commands}"
        raise StoppedError(message, signal_name="SIGINT") from None


class _Output:
    """A job's output, which the server sends from its beginning each time that it is asked."""

    def __init__(self, job: Job, log: Callable[[str], None]) -> None:
        self._job, self._log = job, log
        self.passed = 0
        """Characters that `log` has got."""

    async def pass_on(self) -> None:
        """Pass on what is new, until the job ends, the server closes the connection, or it is silent."""
        place, texts = 0, self._job.client.tail_job_logs(self._job.id)
        while True:
            try:
                text: str = await asyncio.wait_for(anext(texts), _SILENT_SECONDS)
            except (StopAsyncIteration, asyncio.TimeoutError):
                return
            new = text[max(self.passed - place, 0) :]
            place += len(text)
            if new:
                self._log(new)
                self.passed = place


def _followed(job: Job, *, log: Callable[[str], None]) -> Any:
    """Follow the job to its end; return what Ray knows of it then, a `JobDetails`."""
    output, pauses = _Output(job, log), list(_PAUSES_SECONDS)
    while True:
        passed = output.passed
        try:
            asyncio.run(output.pass_on())
            info = job.client.get_job_info(job.id)
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            if output.passed > passed:
                pauses = list(_PAUSES_SECONDS)
            if not pauses:
                reason = f"lost the connection to {job.address}: {one_line(error)}"
                raise ColophonError(f"submit: {reason}. Job {job.id} continues without it. {job.commands}") from error
            if len(pauses) == len(_PAUSES_SECONDS):
                log(f"submit: the connection is cut; waiting for {job.address}\n")
            time.sleep(pauses.pop(0))
            continue
        if info.status in _OVER:
            return info
        pauses = list(_PAUSES_SECONDS)
        time.sleep(pauses[0])


def _exit_code(job: Job, info: Any) -> int:
    """The exit code of a job that has ended.

    Raises:
        ColophonError: it has none: a signal, `ray job stop` or the loss of its node ended it, or it did not start.
    """
    code = 0 if info.status == "SUCCEEDED" else info.driver_exit_code
    if code is None or not 0 <= code < _BY_SIGNAL or info.status == "STOPPED":
        outcome = "was stopped" if info.status == "STOPPED" else "failed"
        reason = one_line(ColophonError(info.message or "Ray states no reason"))
        raise ColophonError(f"submit: job {job.id} {outcome}: {reason}. The same command again resumes the run")
    return int(code)
