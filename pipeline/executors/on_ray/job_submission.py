"""Commands sent to a cluster through Ray's job API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError

from colophon.pipeline.errors import UsageError, one_line
from colophon.pipeline.executors.on_ray.cluster import TOKEN_HELP


def submit_job(
    entrypoint: str,
    *,
    address: str,
    working_dir: Path,
    excludes: Sequence[str],
    requirements: list[str],
    log: Callable[[str], None],
) -> int:
    """Run a command on a cluster through Ray's job API, pass its log to `log`, and return its exit code.

    Args:
        entrypoint: the shell command.
        address: the job server's, `http://HOST:8265`.
        working_dir: uploaded; the command runs in it, and its packages are importable.
        excludes: patterns of `.gitignore` for what is not uploaded.
        requirements: what pip installs for the job.
        log: is called with the job's output as it arrives.

    Raises:
        UsageError: no job server answers at the address.
    """
    import asyncio

    from ray.job_submission import JobSubmissionClient

    runtime_env: dict[str, Any] = {"working_dir": str(working_dir), "excludes": list(excludes)}
    if requirements:
        runtime_env["pip"] = {"packages": requirements, "pip_check": False}
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env)
    except AuthenticationError as error:
        raise UsageError(f"submit: the cluster at {address} asks for a token: {TOKEN_HELP}") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"submit: no Ray job server at {address}: {one_line(error)}") from error

    async def follow() -> None:
        async for text in client.tail_job_logs(job):
            log(text)

    asyncio.run(follow())
    info = client.get_job_info(job)
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    return 0 if str(info.status) == "SUCCEEDED" else 1
