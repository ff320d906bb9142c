"""Addresses of clusters and job servers that nobody answers, and directories that Ray cannot use: one line, soon."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.on_ray import address
from colophon.pipeline.executors.on_ray.address import (
    check_cluster_address,
    check_job_server,
    job_server_url,
    private_temporary_directory,
)
from tests.pipeline.executors.nodes import ROOT
from tests.pipeline.project import colophon, run, snapshot
from tests.ports import free_ports


@pytest.fixture
def listener() -> Iterator[str]:
    """The address of a port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("spelled", ["head", "head:port", "http://127.0.0.1:8265", "127.0.0.1:6379/x", "a b:1"])
def test_an_address_in_another_form_is_refused(spelled: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_cluster_address(spelled, where="ray.address")
    expected = "ray.address must be HOST:PORT, ray://HOST:PORT or auto"
    assert str(caught.value) == f"ray: no cluster at {spelled}: {expected}"
    with pytest.raises(UsageError) as caught:
        check_cluster_address("user:secret@head:6379", where="RAY_ADDRESS")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_is_tried_before_ray_is(listener: str, scheme: str) -> None:
    check_cluster_address(scheme + listener, where="RAY_ADDRESS")
    check_cluster_address("auto", where="RAY_ADDRESS")
    [port] = free_ports(1)
    with pytest.raises(UsageError, match=f"no cluster at {scheme}127.0.0.1:{port}: Connection refused"):
        check_cluster_address(f"{scheme}127.0.0.1:{port}", where="RAY_ADDRESS")
    with pytest.raises(UsageError, match=r"a port is a number from 1 to 65535\. Start one there"):
        check_cluster_address(f"{scheme}127.0.0.1:65536", where="RAY_ADDRESS")
    with pytest.raises(UsageError, match=f"no cluster at {scheme}no-such-host.invalid:6379: "):
        check_cluster_address(f"{scheme}no-such-host.invalid:6379", where="RAY_ADDRESS")


CONNECT = """
import sys
from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.on_ray import cluster
from colophon.pipeline.recipe.schema import RaySection
cluster.ANSWER_SECONDS = 2.0
try:
    cluster.connect(RaySection(address=sys.argv[1]), log=print)
except UsageError as error:
    print(error)
"""


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_port_that_is_no_cluster_is_one_line_and_not_those_of_ray(listener: str) -> None:
    """In a process of its own: a thread of Ray repeats its attempts until that ends."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", CONNECT, listener]
    done = subprocess.run(command, env=environment, cwd=ROOT, text=True, capture_output=True, check=True, timeout=120)
    assert done.stdout.startswith(f"ray: no cluster at {listener}: no answer within 2 seconds")
    assert len(done.stdout.splitlines()) == 1


def test_a_password_in_an_address_is_refused_and_not_repeated(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = run("--set", "ray.address=user:pa55@head:6379")
    assert (called.code, called.line) == (2, "recipe.toml: ray.address: must be HOST:PORT, ray://HOST:PORT or auto")
    monkeypatch.setenv("RAY_ADDRESS", "user:pa55@head:6379")
    called = colophon("run", "recipe.toml", "--executor", "ray")
    assert called.code == 2
    assert "pa55" not in called.out + called.err


@pytest.mark.parametrize("value", ["{}", "ray://{}"])
def test_a_run_names_the_cluster_that_it_waits_for_and_writes_nothing(project: Path, value: str) -> None:
    """In a process of its own, which no other test has connected to a cluster."""
    [port] = free_ports(1)
    address = value.format(f"127.0.0.1:{port}")
    before = snapshot()
    command = [sys.executable, "-m", "colophon", "run", "recipe.toml"]
    done = subprocess.run(
        command, check=False, env={**os.environ, "RAY_ADDRESS": address}, text=True, capture_output=True
    )
    assert done.returncode == 2
    assert done.stdout == f"ray: connecting to {address}\n"
    assert done.stderr.startswith(f"colophon: ray: no cluster at {address}: Connection refused. Start one there with ")
    assert done.stderr.count("\n") == 1
    assert snapshot() == before


def test_a_mistake_in_a_recipe_comes_before_the_connection(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = free_ports(1)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    for setting, line in [
        ("pack.sequence_length=2", "recipe.toml: pack.sequence_length: must be at least 28"),
        ("input.paths=none.parquet", "recipe.toml: input.paths: none.parquet: no such file"),
        ("tokenizer.path=none.json", "recipe.toml: tokenizer: no tokenizer file none.json"),
        ('annotators.q={type="fasttext",model="none.bin",score={argmax=true}}', "recipe.toml: annotators.q.model: "),
    ]:
        called = colophon("run", "recipe.toml", "--set", setting)
        assert called.code == 2
        assert called.line.startswith(line)
        assert called.out == "", "nothing was connected to"


def test_a_job_server_needs_no_scheme(listener: str) -> None:
    assert job_server_url(listener) == job_server_url(f"http://{listener}") == f"http://{listener}"
    assert job_server_url("https://ray.example.org/cluster") == "https://ray.example.org/cluster"
    with pytest.raises(UsageError, match="submit: --address head: must be http://HOST:8265"):
        job_server_url("head")


@pytest.mark.parametrize(
    "spelled", ["http://", "http://[::1", "http://head:port", "http://head:99999", "http://:8265", "ray://head:10001"]
)
def test_a_url_that_is_no_web_address_is_refused(spelled: str) -> None:
    with pytest.raises(UsageError, match="submit: --address: must be http://HOST:8265"):
        job_server_url(spelled)


def test_a_job_server_that_is_silent_or_missing_is_named(listener: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "ANSWER_SECONDS", 0.1)
    with pytest.raises(
        UsageError, match=f"submit: no Ray job server at http://{listener}: no answer within 0.1 seconds"
    ):
        check_job_server(f"http://{listener}")
    [port] = free_ports(1)
    with pytest.raises(UsageError, match=f"submit: no Ray job server at http://127.0.0.1:{port}: Connection refused"):
        check_job_server(f"http://127.0.0.1:{port}")
    check_job_server(f"http://127.0.0.1:{port}/cluster")  # behind a proxy: Ray's client finds out


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("long" * 20, "too long for Ray's sockets: at most 39 characters"),
        ("ü", "Ray needs a path of ASCII characters"),
        ("none", "no such directory"),
        ("file", "not a directory"),
    ],
)
def test_a_directory_that_ray_cannot_use_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.chdir("/")  # temporary directories of tests are too long for Ray themselves
    home = f"/tmp/{os.getpid()}"
    Path(home).mkdir(exist_ok=True)
    try:
        Path(home, "file").touch()
        if name not in ("none", "file"):
            Path(home, name).mkdir(mode=0o700)
        monkeypatch.setenv("RAY_TMPDIR", f"{home}/{name}")
        with pytest.raises(UsageError) as caught:
            private_temporary_directory()
        remedy = "Set RAY_TMPDIR to a short, writable directory such as /tmp, or use --executor local"
        assert str(caught.value) == f"ray: RAY_TMPDIR={home}/{name}: {reason}. {remedy}"
        monkeypatch.chdir(project)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        before = snapshot()
        command = [sys.executable, "-m", "colophon", "run", "recipe.toml", "--executor", "ray"]
        done = subprocess.run(command, check=False, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (2, f"colophon: {caught.value}\n")
        assert snapshot() == before
        assert run().code == 0, "the remedy"
    finally:
        for path in sorted(Path(home).iterdir()):
            path.rmdir() if path.is_dir() else path.unlink()
        Path(home).rmdir()


def test_the_temporary_directory_of_ray_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray lets every user write into all that it creates."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # temporary directories of tests are too long for Ray
        private, shared = Path(short, "private"), Path(short, "shared")
        own = shared / f"ray-{os.getuid()}"
        for directory, mode, expected in ((private, 0o700, private), (shared, 0o755, own), (shared, 0o755, own)):
            directory.mkdir(exist_ok=True)
            directory.chmod(mode)
            monkeypatch.setenv("RAY_TMPDIR", str(directory))
            assert private_temporary_directory() == expected
            assert stat.S_IMODE(expected.stat().st_mode) == 0o700
        own.chmod(0o777)
        assert stat.S_IMODE(private_temporary_directory().stat().st_mode) == 0o700
        for target in (private, Path(short, "nothing")):
            own.unlink() if own.is_symlink() else own.rmdir()
            own.symlink_to(target)
            with pytest.raises(UsageError, match=rf"{own} cannot be written: (it is a link|File exists)"):
                private_temporary_directory()
        assert not Path(short, "nothing").exists()
