"""`submit` to a real cluster that loses connections, drivers, nodes and its head: `make test-cluster`, ten minutes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from colophon.pipeline.runs.upload import MAX_UPLOAD_BYTES
from colophon.pipeline.storage.fault_injection import VARIABLE
from tests.pages import ROOT
from tests.pipeline.executors.nodes import Cluster, two_nodes
from tests.pipeline.small_run import run_recipe, write_small_run

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.xdist_group("ray")]
LIMIT_SECONDS = 300


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where a fault counts how often its step was reached."""
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture
def cluster(marks: Path) -> Iterator[Cluster]:
    """Two nodes; the third partition hangs before its record until `marks/go` exists."""
    fault = {"step": "before record", "action": "hang", "stage": "tokens", "at": 3, "directory": str(marks)}
    own = {VARIABLE: json.dumps(fault)}
    with two_nodes(job_server=True, of_head=own, of_second=own) as cluster:
        yield cluster


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A user's directory."""
    recipe = write_small_run(tmp_path / "shared")
    (tmp_path / "work").mkdir()
    shutil.copy(recipe, tmp_path / "work")
    return tmp_path / "work"


def submit(cluster: Cluster, work: Path, *options: str, address: str | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "colophon", "submit", "recipe.toml", "--address", address or cluster.jobs]
    return subprocess.Popen(
        [*command, "--no-install", *options],
        cwd=work,
        env={**cluster.environment, "PYTHONUNBUFFERED": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
    return process.returncode, out, err


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    pause = threading.Event()
    for _ in range(LIMIT_SECONDS * 20):
        if condition():
            return
        assert process is None or process.poll() is None, process.communicate()
        pause.wait(0.05)
    raise AssertionError("it did not happen")


def ray(cluster: Cluster, *arguments: str) -> str:
    program = shutil.which("ray", path=cluster.environment["PATH"]) or "ray"
    done = subprocess.run(
        [program, "job", *arguments], env=cluster.environment, text=True, capture_output=True, check=False
    )
    return done.stdout + done.stderr


def assert_complete(work: Path) -> None:
    expected = run_recipe(work / "recipe.toml", output=work / "here")
    output = work.parent / "shared/out"
    assert all((output / path).read_bytes() == (work / "here" / path).read_bytes() for path in expected)
    assert (output / "manifest.json").exists()


@contextmanager
def proxy(address: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """A port that forwards to an address, and a function that cuts all of its connections."""
    host, port = address.removeprefix("http://").split(":")
    listener, cut = socket.create_server(("127.0.0.1", 0)), list[socket.socket]()

    def forward(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            end.close()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((host, int(port)))
            cut.extend([client, server])
            for ends in ((client, server), (server, client)):
                threading.Thread(target=forward, args=ends, daemon=True).start()

    def cut_all() -> None:
        for end in cut:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", cut_all
    finally:
        listener.close()
        cut_all()


def test_a_cut_connection_is_opened_again_and_shows_no_line_twice(cluster: Cluster, work: Path, marks: Path) -> None:
    with proxy(cluster.jobs) as (address, cut):
        process = submit(cluster, work, address=address)
        wait_until((marks / "3").exists, process)
        cut()
        (marks / "go").touch()
        code, out, err = ended(process)
    assert (code, err) == (0, "")
    assert out.count("ray: attached to ") == 1
    assert "pack: " in out
    assert_complete(work)


def test_ctrl_c_leaves_the_job_which_completes(cluster: Cluster, work: Path, marks: Path) -> None:
    process = submit(cluster, work)
    wait_until((marks / "3").exists, process)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == 130
    job = out.partition("job ")[2].partition(".")[0]
    follow = f"ray job logs --follow {job} --address {cluster.jobs}"
    assert err.strip().endswith(
        f"colophon: submit: interrupted; job {job} continues. Follow it: {follow}. "
        f"Stop it: ray job stop {job} --address {cluster.jobs}"
    )
    (marks / "go").touch()
    assert "pack: " in ray(cluster, "logs", "--follow", job, "--address", cluster.jobs)
    assert_complete(work)


def test_a_job_that_nobody_follows_is_stopped_by_the_printed_command(cluster: Cluster, work: Path, marks: Path) -> None:
    code, out, err = ended(submit(cluster, work, "--no-wait"))
    assert (code, err) == (0, "")
    stop = out.rpartition("Stop it: ray job ")[2].split()
    wait_until((marks / "3").exists)
    assert "was stopped" in ray(cluster, *stop)
    assert not (work.parent / "shared/out/manifest.json").exists()
    (marks / "go").touch()
    assert ended(submit(cluster, work))[0] == 0
    assert_complete(work)


def test_a_killed_driver_is_a_failed_job_and_the_next_one_resumes(cluster: Cluster, work: Path, marks: Path) -> None:
    process = submit(cluster, work)
    wait_until((marks / "3").exists, process)
    drivers = [process for process in psutil.process_iter(["cmdline"]) if is_driver(process, cluster)]
    assert drivers
    for driver in drivers:
        driver.kill()
    code, _, err = ended(process)
    assert code == 1
    assert "colophon: submit: job raysubmit_" in err
    assert "The same command again resumes the run" in err
    (marks / "go").touch()
    code, out, err = ended(submit(cluster, work))
    assert (code, err) == (0, ""), out
    assert_complete(work)


def is_driver(process: psutil.Process, cluster: Cluster) -> bool:
    """Whether it is the command of a job of this cluster."""
    line = process.info["cmdline"] or []
    with suppress(psutil.Error):
        return line[1:4] == ["-m", "colophon", "run"] and process.environ().get("RAY_ADDRESS") == cluster.address
    return False


def test_a_lost_node_ends_no_job(cluster: Cluster, work: Path, marks: Path) -> None:
    process = submit(cluster, work)
    wait_until((marks / "3").exists, process)
    cluster.remove_second()
    (marks / "go").touch()
    code, out, err = ended(process)
    assert (code, err) == (0, ""), out
    assert_complete(work)


def test_a_lost_head_is_named_with_the_commands(work: Path, marks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = {"step": "before record", "action": "hang", "stage": "tokens", "at": 3, "directory": str(marks)}
    own = {VARIABLE: json.dumps(fault)}
    with two_nodes(job_server=True, of_head=own, of_second=own) as cluster:
        process = submit(cluster, work)
        wait_until((marks / "3").exists, process)
    code, out, err = ended(process)
    assert code == 1
    assert "submit: the connection is cut; waiting for " in out
    assert f"colophon: submit: lost the connection to {cluster.jobs}: " in err
    (marks / "go").touch()
    with two_nodes(job_server=True) as cluster:
        code, out, err = ended(submit(cluster, work))
    assert (code, err) == (0, ""), out
    assert_complete(work)


def test_the_largest_upload_is_taken(cluster: Cluster, work: Path, marks: Path) -> None:
    """Random bytes, which a zip does not make smaller. The job fails, because they are no model."""
    (work / "large.bin").write_bytes(os.urandom(MAX_UPLOAD_BYTES - 3_000_000))
    model = 'annotators.q={type="fasttext",model="large.bin",score={argmax=true}}'
    code, out, err = ended(submit(cluster, work, "--set", model))
    assert code == 2, err
    assert "large.bin" in out.partition("job raysubmit_")[2]


@pytest.mark.skipif(shutil.which("unshare") is None or shutil.which("ip") is None, reason="needs Linux's namespaces")
def test_ray_in_a_slurm_job_of_three_nodes(tmp_path: Path) -> None:
    """The nodes are namespaces of this machine; the home directory has a token of another cluster."""
    recipe = write_small_run(tmp_path / "work")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").symlink_to(ROOT / "tests/deploy/srun.sh")
    (programs / "scontrol").write_text("#!/bin/sh\nprintf '10.77.0.%s\\n' 1 2 3\n")
    (programs / "scontrol").chmod(0o755)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("left over")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    own = {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "1",
    }
    done = subprocess.run(
        ["bash", ROOT / "deploy/slurm/ray.sh", str(recipe)],
        env={**inherited, **own},
        text=True,
        capture_output=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ray: attached to 10.77.0.1:6379" in done.stdout
    assert (tmp_path / "work/out/manifest.json").exists()
