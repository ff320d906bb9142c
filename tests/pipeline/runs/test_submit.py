"""`colophon submit` end to end: Ray's job API on a real cluster of two raylets on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from colophon.shards.common.paths import SUBMITTED
from tests.pipeline.executors.nodes import ROOT, Cluster, two_nodes
from tests.pipeline.small_run import run_recipe, write_small_run
from tests.ports import free_ports

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two raylets with a directory of their own each. The jobs' processes would import another `colophon` than ours."""
    places = tmp_path_factory.mktemp("places")
    trap = places / "trap"
    (trap / "colophon").mkdir(parents=True)
    (trap / "colophon/__init__.py").write_text("raise SystemExit('not the uploaded code')")
    (places / "sitecustomize.py").write_text(
        f"import os, sys\nif '{SUBMITTED}' in os.environ:\n"
        f"    sys.path[:] = ['{trap}' if path == '{ROOT}' else path for path in sys.path]\n"
    )
    own = {"PYTHONPATH": f"{places}{os.pathsep}{ROOT}"}
    with two_nodes(job_server=True, of_head=own, of_second=own) as cluster:
        yield cluster


def colophon(*arguments: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "colophon", *arguments],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def working_dir(tmp_path: Path) -> Path:
    """A user's directory: a recipe and a tokenizer, whose path is relative. Data and output are on a shared disk."""
    recipe = write_small_run(tmp_path / "shared")
    (tmp_path / "upload").mkdir()
    shutil.move(tmp_path / "shared/bytes.tiktoken", tmp_path / "upload/bytes.tiktoken")
    (tmp_path / "upload/recipe.toml").write_text(recipe.read_text().replace(f"{tmp_path}/shared/bytes", "bytes"))
    return tmp_path / "upload"


def test_a_submitted_run_makes_the_files_that_a_run_here_makes(
    cluster: Cluster, working_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = working_dir.parent / "on-cluster"
    options = ("--address", cluster.jobs, "--no-install", "--set", f"output.path={output}")
    done = colophon("submit", "recipe.toml", *options, cwd=working_dir, environment=cluster.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ray: attached to {cluster.address}, 2 CPUs" in done.stdout, "not to another cluster of the machine"
    assert "pack: " in done.stdout, "the job's log is streamed"
    assert "is left out" not in done.stdout, "each node has the tokenizer in a place of its own"
    assert done.stderr == ""
    monkeypatch.chdir(working_dir)
    expected = run_recipe(working_dir / "recipe.toml", output=working_dir.parent / "here")
    checked = colophon(
        "verify", "recipe.toml", "--set", f"output.path={output}", cwd=working_dir, environment=cluster.environment
    )
    assert checked.returncode == 0, checked.stderr
    assert {p for p in expected if (output / p).is_file()} == set(expected)
    assert all((output / p).read_bytes() == (working_dir.parent / "here" / p).read_bytes() for p in expected)


@pytest.mark.slow
def test_a_submitted_search_for_duplicates_writes_the_table_of_one_here(cluster: Cluster, working_dir: Path) -> None:
    table = working_dir.parent / "table.parquet"
    with (working_dir / "recipe.toml").open("a") as recipe:
        recipe.write(f"[annotators.duplicates]\npath = '{table}'\n")
    options = ("--address", cluster.jobs, "--no-install", "--command", "duplicates")
    done = colophon("submit", "recipe.toml", *options, cwd=working_dir, environment=cluster.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ray: attached to {cluster.address}, 2 CPUs" in done.stdout
    expected = table.read_bytes()
    here = ("duplicates", "recipe.toml", "--executor", "inline", "--set", f"output.path={working_dir.parent}/here")
    assert colophon(*here, cwd=working_dir, environment=cluster.environment).returncode == 0
    assert table.read_bytes() == expected


def test_a_submitted_run_ends_with_the_exit_code_of_its_job(cluster: Cluster, working_dir: Path) -> None:
    options = ("--address", cluster.jobs, "--no-install", "--set", "input.paths=/no/such/file.parquet")
    done = colophon("submit", "recipe.toml", *options, cwd=working_dir, environment=cluster.environment)
    assert done.returncode == 2
    assert "colophon: recipe.toml: input.paths: /no/such/file.parquet: no such file" in done.stdout


def test_a_run_attaches_to_a_running_cluster(cluster: Cluster, working_dir: Path) -> None:
    output = working_dir.parent / "attached"
    options = ("--set", f"output.path={output}", "--set", f"ray.address={cluster.address}")
    done = colophon("run", "recipe.toml", *options, cwd=working_dir, environment=cluster.environment)
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
    [port] = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    options = ("--address", address, "--no-install", "--working-dir", str(tmp_path))
    done = colophon("submit", str(recipe), *options, cwd=tmp_path, environment=dict(os.environ))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"colophon: submit: no Ray job server at {address}")
    assert done.stdout == ""  # no list of an upload that will not be


def test_a_recipe_outside_the_working_directory_is_refused(tmp_path: Path) -> None:
    recipe = write_small_run(tmp_path / "shared")
    (tmp_path / "upload").mkdir()
    options = ("--address", "http://127.0.0.1:1", "--no-install", "--working-dir", str(tmp_path / "upload"))
    done = colophon("submit", str(recipe), *options, cwd=tmp_path, environment=dict(os.environ))
    assert done.returncode == 2
    assert "is not under the working directory" in done.stderr
