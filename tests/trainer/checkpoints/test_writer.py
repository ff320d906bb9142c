"""Checkpoints that are written while the training continues: order, errors, kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from colophon.trainer.checkpoints import saver
from colophon.trainer.checkpoints.checkpoint import checkpoints
from colophon.trainer.checkpoints.writer import CheckpointWriter
from colophon.trainer.errors import NotWrittenError
from colophon.trainer.loop import train
from tests.trainer.courses import Killed, assert_same_end, kill_at
from tests.trainer.runs import config

ROOT = Path(__file__).parents[3]
LIMIT_SECONDS = 60
EVERY_TWO = {"checkpoint_every": 2, "validation_rows": 0, "log_every": 1}
KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import colophon.shards.common.durable as durable
from colophon.trainer.loop import train
from tests.trainer.runs import config

sync = durable.sync
def killed_in_the_second(path):
    if ".step-00000004." in str(path):
        os.kill(os.getpid(), signal.SIGKILL)
    sync(path)
durable.sync = killed_in_the_second
train(config(checkpoint_every=2, validation_rows=0, log_every=1), name="killed", output=Path(sys.argv[1]))
"""


def save_after(event: threading.Event) -> Any:
    """`save_checkpoint`, which waits for `event` first."""
    save = saver.save_checkpoint

    def waiting(*arguments: Any, **options: Any) -> Path:
        assert event.wait(LIMIT_SECONDS)
        return save(*arguments, **options)

    return waiting


def test_the_training_continues_while_a_checkpoint_is_written_and_has_its_own_weights(
    run_output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(**{**EVERY_TWO, "checkpoint_every": 5})
    train(settings, name="at-once", output=run_output)
    later, lines = threading.Event(), []

    def report(line: str) -> None:
        lines.append(line)
        if line.startswith("step 7/"):
            later.set()

    monkeypatch.setattr(saver, "save_checkpoint", save_after(later))
    train(settings, name="behind", output=run_output, report=report)
    saved = next(number for number, line in enumerate(lines) if line.startswith("step 5/8  saved "))
    assert any(line.startswith("step 7/") for line in lines[:saved])
    for step in ("step-00000005", "step-00000008"):
        one, other = (run_output / "training" / name / "checkpoints" / step for name in ("at-once", "behind"))
        for file in ("model.safetensors", "optimizer.safetensors", "state.json"):
            assert (one / file).read_bytes() == (other / file).read_bytes()


def test_a_process_killed_while_it_writes_resumes_from_the_checkpoint_before(run_output: Path) -> None:
    settings = config(**EVERY_TWO)
    train(settings, name="unbroken", output=run_output)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(run_output)]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    directory = run_output / "training/killed/checkpoints"
    assert [path.name for path in checkpoints(directory)] == ["step-00000002"]
    assert any(path.name.startswith(".step-00000004.") for path in directory.iterdir())
    lines: list[str] = []
    train(settings, name="killed", output=run_output, resume=True, report=lines.append)
    assert lines[0].startswith("resumed after step 2 from ")
    assert_same_end(run_output, "unbroken", "killed")
    assert [path.name for path in sorted(directory.iterdir())] == ["step-00000006", "step-00000008"]


def test_a_checkpoint_that_cannot_be_written_ends_the_run(run_output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> Path:
        raise NotWrittenError("no space left")

    monkeypatch.setattr(saver, "save_checkpoint", full)
    lines: list[str] = []
    with pytest.raises(NotWrittenError, match="no space left"):
        train(config(**EVERY_TWO), name="a", output=run_output, report=lines.append)
    assert not any(line.startswith("step 5/") for line in lines)  # at the latest before the next checkpoint


def test_an_error_of_the_training_waits_for_the_checkpoint_under_way(
    run_output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = threading.Event()

    def report(line: str) -> None:
        if line.startswith("step 3/"):
            killed.set()
        kill_at(3)(line)

    monkeypatch.setattr(saver, "save_checkpoint", save_after(killed))
    with pytest.raises(Killed):
        train(config(**EVERY_TWO), name="a", output=run_output, report=report)
    assert [path.name for path in checkpoints(run_output / "training/a/checkpoints")] == ["step-00000002"]


def test_the_error_of_a_write_is_raised_once_or_reported_beside_a_different_one() -> None:
    def fails() -> Path:
        raise NotWrittenError("no space left")

    lines: list[str] = []
    writer = CheckpointWriter(written=lambda path: None, report=lines.append)
    writer.start(fails)
    with pytest.raises(NotWrittenError):
        writer.wait()
    writer.check()
    writer.wait()
    with pytest.raises(Killed), writer:
        writer.start(fails)
        raise Killed
    assert lines == ["no space left"]


def test_a_second_interrupt_does_not_wait_for_a_checkpoint() -> None:
    end, written = threading.Event(), list[Path]()
    writer = CheckpointWriter(written=written.append, report=lambda line: None)

    def write() -> Path:
        assert end.wait(LIMIT_SECONDS)
        return Path("a")

    with pytest.raises(KeyboardInterrupt), writer:
        writer.start(write)
        raise KeyboardInterrupt
    writer.check()
    assert not written
    end.set()
    writer.wait()
    assert written == [Path("a")]
