"""Commands sent to a cluster through Ray's job API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from colophon.pipeline.errors import UsageError, one_line
from colophon.pipeline.executors.on_ray.cluster import TOKEN_HELP


class Job(NamedTuple):
    """A job on a cluster."""

    client: JobSubmissionClient
    id: str


def send_job(entrypoint: str, *, address: str, working_dir: Path, requirements: list[str]) -> Job:
    """Upload a directory to a cluster and start a command in it.

    Args:
        entrypoint: the shell command.
        address: the job server's, `http://HOST:8265`.
        working_dir: uploaded whole; the command runs in it, and its packages are importable.
        requirements: what pip installs for the job.

    Raises:
        UsageError: no job server answers at the address.
    """
    runtime_env: dict[str, Any] = {"working_dir": str(working_dir)}
    if requirements:
        runtime_env["pip"] = {"packages": requirements, "pip_check": False}
    try:
        client = JobSubmissionClient(address)
        return Job(client, client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env))
    except AuthenticationError as error:
        raise UsageError(f"submit: the cluster at {address} asks for a token: {TOKEN_HELP}") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"submit: no Ray job server at {address}: {one_line(error)}") from error


def follow_job(job: Job, *, log: Callable[[str], None]) -> int:
    """Pass the job's output to `log` as it arrives, and return the job's exit code."""

    async def follow() -> None:
        async for text in job.client.tail_job_logs(job.id):
            log(text)

    asyncio.run(follow())
    info = job.client.get_job_info(job.id)
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    return 0 if str(info.status) == "SUCCEEDED" else 1
