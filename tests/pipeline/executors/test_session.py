"""Which executor a command gets, and how local workers start and end with whatever started them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from colophon.pipeline.executors.session import ExecutorName, ExecutorSession, resolve_executor
from colophon.pipeline.recipe.schema import RaySection
from tests.pipeline.executors.nodes import ROOT
from tests.pipeline.small_run import write_small_run


@pytest.mark.parametrize(
    ("name", "address", "variable", "expected"),
    [
        ("auto", None, None, "local"),
        ("auto", None, "", "local"),
        ("auto", "auto", None, "ray"),
        ("auto", None, "10.0.0.1:6379", "ray"),
        ("local", "auto", "10.0.0.1:6379", "local"),
        ("inline", "auto", "10.0.0.1:6379", "inline"),
        ("ray", None, None, "ray"),
    ],
)
def test_ray_is_used_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, name: str, address: str | None, variable: str | None, expected: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert resolve_executor(ExecutorName(name), RaySection(address=address)) == expected


def test_a_session_logs_where_tasks_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    lines: list[str] = []
    for number in (1, 2):
        with ExecutorSession(ExecutorName.AUTO, RaySection(num_workers=number), log=lines.append) as session:
            session.begin()
            session.connect()
            session.connect()
    with ExecutorSession(ExecutorName.INLINE, RaySection(), log=lines.append) as session:
        session.connect()
    assert lines == ["1 local worker", "2 local workers"]


SCRIPT = """
import sys
from pathlib import Path
from colophon.pipeline.executors.local.pool import LocalPool
from colophon.pipeline.executors.scheduler import Scheduler
from colophon.pipeline.recipe.schema import RaySection
from tests.pipeline.small_run import run_recipe
with Path("runs").open("a") as runs:
    print("the script runs", file=runs)
config = RaySection(num_workers=2)
with Scheduler(LocalPool(config), config) as executor:
    print(len(run_recipe(Path(sys.argv[1]), output=Path("out").absolute(), executor=executor)))
"""


def test_a_script_needs_no_guard_and_its_workers_end_with_it(tmp_path: Path) -> None:
    """Started from another working directory, without `if __name__ == "__main__"`."""
    recipe = write_small_run(tmp_path / "data")
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLOPHON_TEST_SCRIPT": str(place)}
    command = [sys.executable, "script.py", str(recipe)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 10
    assert (place / "runs").read_text() == "the script runs\n"
    _, alive = psutil.wait_procs(_processes_with("COLOPHON_TEST_SCRIPT", str(place)), timeout=30)
    assert alive == []


def _processes_with(variable: str, value: str) -> list[psutil.Process]:
    """Processes of this user that have the environment variable."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(("first", "mode"), [("", "token"), ("import ray; ", "None")])
def test_a_token_is_used_unless_ray_was_imported_before(tmp_path: Path, first: str, mode: str) -> None:
    """Ray reads the mode when it is imported: set afterwards, it would hold for Ray's processes alone."""
    pytest.importorskip("ray")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("0" * 64)
    ask = f"{first}import os, colophon.pipeline.executors.on_ray; print(os.environ.get('RAY_AUTH_MODE'))"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**kept, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    asked = subprocess.run([sys.executable, "-c", ask], env=environment, text=True, capture_output=True, check=True)
    assert asked.stdout == f"{mode}\n"
