"""`colophon submit` end to end: Ray's job API on a real cluster of two raylets on this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.pipeline.small_run import run_recipe, write_small_run

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cluster:
    jobs: str
    """Address of the job server."""
    address: str
    """Address that drivers attach to."""
    environment: dict[str, str]
    """Holds the token that the cluster asks for."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def raylet(address: str, *options: str, environment: dict[str, str]) -> Iterator[None]:
    """A node of a cluster, on a loopback address of its own; it and all that it started end with the context."""
    command = [shutil.which("ray", path=environment["PATH"]) or "ray", "start", "--block", "--num-cpus=1"]
    limits = ["--object-store-memory=100000000", "--disable-usage-stats", f"--node-ip-address={address}"]
    # Of these a second node on the same machine, or another cluster, would take the same by default.
    agents = (
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "runtime-env-agent-port",
        "metrics-export-port",
    )
    ports = [f"--{agent}={free_port()}" for agent in agents]
    process = subprocess.Popen(
        [*command, *limits, *ports, *options],
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


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with the job server and a second raylet, both asking for a token."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
    }
    jobs_port, gcs_port = free_port(), free_port()
    scratch = tempfile.mkdtemp(prefix="ray")  # short: sockets lie in it
    serving = ("--dashboard-host=127.0.0.1", f"--dashboard-port={jobs_port}", f"--temp-dir={scratch}/a")
    try:
        with (
            raylet("127.0.0.2", "--head", f"--port={gcs_port}", *serving, environment=environment),
            raylet("127.0.0.3", f"--address=127.0.0.2:{gcs_port}", f"--temp-dir={scratch}/b", environment=environment),
        ):
            cluster = Cluster(f"http://127.0.0.1:{jobs_port}", f"127.0.0.2:{gcs_port}", environment)
            wait_for_both_nodes(cluster)
            yield cluster
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def wait_for_both_nodes(cluster: Cluster) -> None:
    """Until a driver sees two CPUs; each look takes a driver's start, so there is no need to sleep between them."""
    look = (
        f"import ray; ray.init(address={cluster.address!r}, log_to_driver=False); print(ray.cluster_resources()['CPU'])"
    )
    for _ in range(20):
        seen = subprocess.run(
            [sys.executable, "-c", look],
            env=cluster.environment,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
        )
        if seen.stdout.strip() == "2.0":
            return
    raise AssertionError(f"the cluster has no two nodes: {seen.stdout} {seen.stderr}")


def colophon(*arguments: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def working_dir(tmp_path: Path) -> Path:
    """What a user uploads: the packages and a recipe. Data and output lie on a file system that all nodes see."""
    for package in ("annotators", "pipeline", "recipes", "shards", "trainer"):
        shutil.copytree(ROOT / package, tmp_path / "upload" / package, ignore=shutil.ignore_patterns("__pycache__"))
    recipe = write_small_run(tmp_path / "shared")
    shutil.copy(recipe, tmp_path / "upload" / "recipe.toml")
    return tmp_path / "upload"


def test_a_submitted_run_makes_the_files_that_a_run_here_makes(cluster: Cluster, working_dir: Path) -> None:
    output = working_dir.parent / "on-cluster"
    options = ("--address", cluster.jobs, "--no-install", "--set", f"output.path={output}")
    done = colophon("submit", "recipe.toml", *options, cwd=working_dir, environment=cluster.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ray: attached to {cluster.address}, 2 CPUs" in done.stdout, "not to another cluster of the machine"
    assert "pack: " in done.stdout, "the job's log is streamed"
    expected = run_recipe(working_dir / "recipe.toml", output=working_dir.parent / "here")
    checked = colophon(
        "verify", "recipe.toml", "--set", f"output.path={output}", cwd=working_dir, environment=cluster.environment
    )
    assert checked.returncode == 0, checked.stderr
    assert {p for p in expected if (output / p).is_file()} == set(expected)
    assert all((output / p).read_bytes() == (working_dir.parent / "here" / p).read_bytes() for p in expected)


def test_a_submitted_run_ends_with_the_exit_code_of_its_job(cluster: Cluster, working_dir: Path) -> None:
    options = ("--address", cluster.jobs, "--no-install", "--set", "input.paths=/no/such/file.parquet")
    done = colophon("submit", "recipe.toml", *options, cwd=working_dir, environment=cluster.environment)
    assert done.returncode == 2
    assert "colophon: recipe.toml: input.paths: /no/such/file.parquet: no such file" in done.stdout


@pytest.mark.parametrize("how", ["environment", "recipe"])
def test_a_run_attaches_to_a_running_cluster(cluster: Cluster, working_dir: Path, how: str) -> None:
    output = working_dir.parent / f"attached-{how}"
    environment, options = dict(cluster.environment), ["--set", f"output.path={output}"]
    if how == "environment":
        environment["RAY_ADDRESS"] = cluster.address
    else:
        options += ["--set", f"ray.address={cluster.address}"]
    done = colophon("run", "recipe.toml", *options, cwd=working_dir, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ray: attached to {cluster.address}, 2 CPUs" in done.stdout


def test_a_missing_token_is_named(cluster: Cluster, working_dir: Path) -> None:
    environment = {**cluster.environment, "RAY_AUTH_MODE": "disabled"}
    options = ("--address", cluster.jobs, "--no-install")
    done = colophon("submit", "recipe.toml", *options, cwd=working_dir, environment=environment)
    assert done.returncode == 2
    assert "asks for a token: set RAY_AUTH_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_job_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    recipe = write_small_run(tmp_path / "shared")
    address = f"http://127.0.0.1:{free_port()}"
    options = ("--address", address, "--no-install", "--working-dir", str(tmp_path))
    done = colophon("submit", str(recipe), *options, cwd=tmp_path, environment=dict(os.environ))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"colophon: submit: no Ray job server at {address}")


def test_a_recipe_outside_the_working_directory_is_refused(tmp_path: Path) -> None:
    recipe = write_small_run(tmp_path / "shared")
    (tmp_path / "upload").mkdir()
    options = ("--address", "http://127.0.0.1:1", "--no-install", "--working-dir", str(tmp_path / "upload"))
    done = colophon("submit", str(recipe), *options, cwd=tmp_path, environment=dict(os.environ))
    assert done.returncode == 2
    assert "is not under the working directory" in done.stderr
