"""A real Ray cluster of two raylets on loopback addresses of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.ports import free_ports

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Cluster:
    """How a command reaches it."""

    jobs: str
    """Address of the job server."""
    address: str
    """Address that drivers attach to."""
    environment: dict[str, str]
    """Holds the token that the cluster asks for."""
    add_second: Callable[[], None]
    """Start the second node, if it is to join later."""
    remove_second: Callable[[], None]
    """Kill the second node and all of its processes."""


@contextmanager
def raylet(address: str, *options: str, environment: dict[str, str], prefix: Sequence[str] = ()) -> Iterator[None]:
    """A node of a cluster, on a loopback address of its own; it and all that it started end with the context.

    `prefix`: a command that starts it.
    """
    command = [*prefix, shutil.which("ray", path=environment["PATH"]) or "ray", "start", "--block", "--num-cpus=1"]
    limits = [
        "--object-store-memory=100000000",
        "--disable-usage-stats",
        f"--node-ip-address={address}",
        # The one agent that does not look for a port itself: a second node, or another cluster, would take the same.
        "--dashboard-agent-listen-port=0",
    ]
    process = subprocess.Popen(
        [*command, *limits, *options],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        printed = ""
        for line in process.stdout:
            printed += line
            if "--block" in line:  # the last thing that it says once it is up
                break
        else:
            raise AssertionError(f"ray start ended: {printed}")
        yield
    finally:
        # SIGTERM would drain the node for half a minute first.
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.communicate()


@contextmanager
def two_nodes(
    *,
    of_head: Mapping[str, str] | None = None,
    of_second: Mapping[str, str] | None = None,
    second_later: bool = False,
    second_prefix: Sequence[str] = (),
    job_server: bool = False,
) -> Iterator[Cluster]:
    """A head, with the job server if it is asked for, and a second raylet, a CPU each, both asking for a token.

    `of_head` and `of_second`: environment variables of one node's processes alone. `second_later`: the head is alone
    until `add_second` is called. `second_prefix`: a command that starts the second node.
    """
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
    }
    jobs_port, gcs_port = free_ports(2)
    scratch = tempfile.mkdtemp(prefix="ray")  # short: paths of sockets are limited
    dashboard = ["--dashboard-host=127.0.0.1", f"--dashboard-port={jobs_port}"]
    serving = dashboard if job_server else ["--include-dashboard=false"]
    head = f"127.0.0.2:{gcs_port}"
    first, second = {**environment, **(of_head or {})}, {**environment, **(of_second or {})}
    try:
        with (
            raylet("127.0.0.2", "--head", f"--port={gcs_port}", f"--temp-dir={scratch}/a", *serving, environment=first),
            ExitStack() as of,
        ):

            def add_second() -> None:
                options = (f"--address={head}", f"--temp-dir={scratch}/b")
                of.enter_context(raylet("127.0.0.3", *options, environment=second, prefix=second_prefix))

            cluster = Cluster(f"http://127.0.0.1:{jobs_port}", head, environment, add_second, of.close)
            if not second_later:
                add_second()
            wait_for_nodes(cluster, number=1 if second_later else 2)
            yield cluster
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


_LOOK = """
import ray, sys, threading
ray.init(address=sys.argv[1], log_to_driver=False)
while ray.cluster_resources().get("CPU") != float(sys.argv[2]):
    threading.Event().wait(0.05)
"""


def wait_for_nodes(cluster: Cluster, *, number: int) -> None:
    """Until a driver sees that many CPUs."""
    look = [sys.executable, "-c", _LOOK, cluster.address, str(number)]
    subprocess.run(look, env=cluster.environment, check=True, capture_output=True, timeout=120)
