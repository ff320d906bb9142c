"""Attaching to a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import logging
import os
import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.exceptions import AuthenticationError

from colophon.pipeline.errors import UsageError, one_line
from colophon.pipeline.executors.cpus import num_cpus_here
from colophon.pipeline.executors.environment import worker_environment
from colophon.pipeline.executors.on_ray.address import (
    ANSWER_SECONDS,
    OTHER_CLUSTER,
    check_cluster_address,
    private_temporary_directory,
)
from colophon.pipeline.executors.session import cluster_address
from colophon.pipeline.recipe.schema import RaySection
from colophon.shards.common.errors import ColophonError

TOKEN_HELP = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with it"

_LOCAL_OBJECT_STORE_BYTES = 100 << 20  # tasks and records are small; texts never pass through Ray


def connect(config: RaySection, *, log: Callable[[str], None]) -> None:
    """Attach to the cluster that `RAY_ADDRESS` or the recipe names, or start one on this machine's loopback.

    Raises:
        UsageError: no cluster answers at the address within 20 seconds, or none can be started.
    """
    if ray.is_initialized():
        return
    address = cluster_address(config)
    if address:
        check_cluster_address(address, where="RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else "ray.address")
    try:
        if address:
            _attach(address)
            log(f"ray: attached to {address}, {num_cpus()} CPUs")
        else:
            _start_cluster(config, temporary=private_temporary_directory())
            log(f"ray: started on this machine, {num_cpus()} workers")
    except UsageError:
        raise
    except AuthenticationError as error:
        raise UsageError(f"ray: the cluster at {address} asks for a token: {TOKEN_HELP}") from error
    except Exception as error:  # Ray raises its own errors, those of the system, and bare exceptions
        what = f"no cluster at {address}" if address else "no cluster can be started on this machine"
        found_none = "Could not find any running Ray instance" in str(error)
        reason = "none runs on this machine" if found_none else one_line(error).rstrip(".")
        remedy = OTHER_CLUSTER if address else "Use --executor local"
        raise UsageError(f"ray: {what}: {reason}. {remedy}") from error


def _attach(address: str) -> None:
    """Attach to a cluster. A thread does it, because Ray tries for many minutes and nothing stops it."""
    failures: list[Exception] = []

    def attach() -> None:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=attach, name="ray", daemon=True)
    with _standard_error() as lines:
        thread.start()
        thread.join(ANSWER_SECONDS)
    for error in failures:
        raise error
    if thread.is_alive():
        if any("Unauthenticated" in line for line in lines):
            raise AuthenticationError("the token is missing or incorrect")
        # Ray's lines begin with a time and a place in its code, such as `gcs_client.cc:210: `.
        cause = f" ({re.sub(r'^.*?[.](cc|h):[0-9]+: ', '', lines[-1])})" if lines else ""
        raise ConnectionError(f"no answer within {ANSWER_SECONDS:g} seconds{cause}")


@contextmanager
def _standard_error() -> Iterator[list[str]]:
    """Collect the lines that Ray's own code writes to standard error while it tries to connect, one each second."""
    lines: list[str] = []
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield lines
            finally:
                os.dup2(kept, 2)
            file.seek(0)
            lines += [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    finally:
        os.close(kept)


def _start_cluster(config: RaySection, *, temporary: Path) -> None:
    """Start a cluster that only this user can enter and call."""
    if not any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        # Only this process and those that it starts know it. Ray would keep one in a file that everybody can read. It
        # stays for later clusters of this process, because Ray reads it once.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # Ray starts some workers before they are needed; they import numpy before an actor could set anything.
    with worker_environment(RAY_TMPDIR=str(temporary.absolute())):
        ray.init(
            address="local",  # a new cluster, also if another one runs on this machine or has crashed on it
            num_cpus=config.num_workers or num_cpus_here(),
            num_gpus=0,  # else Ray searches for them
            include_dashboard=False,
            object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )


def num_cpus(*, without: Collection[str] = ()) -> int:
    """Return the CPUs of the connected cluster, without those of nodes at the addresses in `without`; at least 1."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeManagerAddress"] not in without]
    return max(int(sum(node["Resources"].get("CPU", 0) for node in nodes)), 1)


def disconnect() -> None:
    """Leave the cluster. One that `connect` started ends."""
    ray.shutdown()


def check_nodes() -> None:
    """Check that the cluster has a node, because actors of a cluster without nodes never answer.

    Raises:
        ColophonError: no node is alive.
    """
    if not any(node["Alive"] for node in ray.nodes()):
        raise ColophonError("ray: no node of the cluster is alive. Run the same command again to resume")
