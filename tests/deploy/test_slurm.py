"""The Slurm array with a stand-in for sbatch that runs tasks as processes; three of them are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from colophon.pipeline.storage.fault_injection import VARIABLE
from tests.pipeline.executors.nodes import ROOT
from tests.pipeline.project import colophon, hashes, manifest
from tests.pipeline.runs.test_faults import INLINE

SHARDS = 4


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """The directory of the stand-in's jobs; `sbatch` and `colophon` are in `bin/` beside it."""
    programs = {
        "sbatch": f'exec {sys.executable} {ROOT}/tests/deploy/sbatch.py "$@"',
        # A killed task is then a killed run: a worker that is killed would be replaced.
        "colophon": 'if [ $1 != finish ]; then set -- "$@" --executor inline; fi\n'
        f'exec {sys.executable} -m colophon "$@"',
    }
    (tmp_path / "bin").mkdir()
    for name, body in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "jobs").mkdir()
    return tmp_path / "jobs"


def submit(slurm: Path, *arguments: str, **environment: str) -> dict[str, dict[str, int]]:
    """Call `submit.sh`; the exit codes of the tasks of its jobs."""
    path = f"{slurm.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    before = set(slurm.glob("*.json"))
    done = subprocess.run(
        ["bash", ROOT / "deploy/slurm/submit.sh", "recipe.toml", str(SHARDS), *arguments],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "FAKE_SLURM": str(slurm), **environment},
        text=True,
        capture_output=True,
        check=True,
    )
    jobs = sorted(set(slurm.glob("*.json")) - before)
    array, finish = (job.stem for job in jobs)
    assert done.stdout == f"array {array}, finish {finish}\n"
    return {job.stem: json.loads(job.read_text()) for job in jobs}


@pytest.mark.slow
def test_an_array_of_which_three_tasks_are_killed(project: Path, templates: Path, slurm: Path, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    fault = {"step": "before record", "stage": "tokens", "action": "kill", "times": 3, "directory": f"{tmp_path}/marks"}
    array, finish = submit(slurm, **{VARIABLE: json.dumps(fault)}).items()
    killed = [int(task) for task, code in array[1].items() if code != 0]
    assert list(array[1]) == ["1", "2", "3", "4"]
    assert len(killed) == 3
    assert finish[1] == {"": 1}
    log = (slurm / f"{finish[0]}_.log").read_text()
    missing = log.partition("of shards ")[2].partition(" of 4.")[0]
    assert not Path("out/manifest.json").exists()
    array, finish = submit(slurm, missing).items()
    assert array[1] == dict.fromkeys(map(str, killed), 0)
    assert finish[1] == {"": 0}
    assert hashes(manifest()) == hashes(manifest(str(templates / "finished/out")))
    assert not list(Path("out").rglob("*.tmp"))


@pytest.mark.slow
def test_an_array_that_finds_duplicates(project: Path, slurm: Path) -> None:
    recipe = Path("recipe.toml").read_text()
    Path("recipe.toml").write_text(f"{recipe}[annotators.duplicates]\npath = 'table.parquet'\nmethod = 'exact'\n")
    array, finish = submit(slurm, f"1-{SHARDS}", "duplicates").values()
    assert (array, finish) == (dict.fromkeys("1234", 0), {"": 0})
    expected = Path("table.parquet").read_bytes()
    assert colophon("duplicates", "recipe.toml", *INLINE, "--set", "output.path=alone").code == 0
    assert Path("table.parquet").read_bytes() == expected


def test_a_wrong_recipe_submits_nothing(project: Path, slurm: Path) -> None:
    Path("recipe.toml").write_text("[input]")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        submit(slurm)
    assert failed.value.returncode == 2
    assert failed.value.stderr == "colophon: recipe.toml: input.paths: is required\n"
    assert not list(slurm.iterdir())
