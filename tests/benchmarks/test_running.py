"""One command: its time, its log, its end."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks import running
from benchmarks.running import CommandError, run_measured


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_command_is_measured_and_logged(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run.log"
    measured = run_measured(python("import os; print(os.environ['WORD'])"), log=log, env={"WORD": "hello"})
    assert 0 < measured.wall_seconds <= measured.tree_seconds
    assert log.read_text() == "hello\n"


def test_a_failure_shows_the_end_of_the_log(tmp_path: Path) -> None:
    code = "import sys; print('x' * 5000); print('the reason'); sys.exit(7)"
    with pytest.raises(CommandError, match="ended with 7") as caught:
        run_measured(python(code), log=tmp_path / "log")
    assert str(caught.value).endswith("the reason\n")
    assert len(str(caught.value)) < 3000


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the tree is found in /proc")
def test_processes_that_outlive_a_command_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_LINGER_SECONDS", 0.1)
    staying = "import signal; print('there', flush=True); signal.pause()"
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {staying!r}], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid)
"""
    measured = run_measured(python(code), log=tmp_path / "log")
    pid = int((tmp_path / "log").read_text())
    with pytest.raises(ProcessLookupError):
        _signal_living(pid)
    assert measured.tree_seconds > measured.wall_seconds


def _signal_living(pid: int) -> None:
    """Raise ProcessLookupError for a process that has ended, or is a zombie."""
    os.kill(pid, 0)
    if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
        raise ProcessLookupError
