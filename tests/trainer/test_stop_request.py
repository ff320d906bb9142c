from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from colophon.trainer.checkpoints.checkpoint import latest_checkpoint
from colophon.trainer.loop import train
from tests.trainer.courses import assert_same_end, metrics_of
from tests.trainer.runs import config


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_current_step(run_output: Path, number: signal.Signals) -> None:
    settings = config(log_every=1)
    train(settings, name="unbroken", output=run_output)

    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if line.startswith("step 3/") and "tokens/s" in line:
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGTERM)  # some launchers send it twice

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    stopped = train(settings, name="stopped", output=run_output, report=report)
    (warned,) = (line for line in lines if "stopping" in line)
    assert warned.startswith(f"{number.name}: stopping after the current step, with a checkpoint")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert (stopped.stopped_by, stopped.state.step) == (number.name, 3)
    train(settings, name="stopped", output=run_output, resume=True)
    assert_same_end(run_output, "unbroken", "stopped")


def test_a_signal_during_the_last_validation_is_not_lost(run_output: Path) -> None:
    def report(line: str) -> None:
        if line.startswith("step 8/8  validation"):
            signal.raise_signal(signal.SIGTERM)

    ended = train(config(steps=8), name="a", output=run_output, report=report)
    assert (ended.stopped_by, ended.state.step) == ("SIGTERM", 8)


def test_a_second_interrupt_does_not_wait(run_output: Path) -> None:
    def report(line: str) -> None:
        if line.startswith("step 3/"):
            signal.raise_signal(signal.SIGINT)

    # Processes that a shell starts in the background ignore interrupts; so would these tests.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(config(log_every=1, checkpoint_every=2), name="a", output=run_output, report=report)
    finally:
        signal.signal(signal.SIGINT, before)
    train(config(log_every=1, checkpoint_every=2), name="a", output=run_output, resume=True)
    assert metrics_of(run_output, "a")[-1]["step"] == 8


def test_sigterm_from_outside_leaves_a_checkpoint(run_output: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.trainer.runs import config\n"
        "from colophon.trainer.loop import train\n"
        "result = train(config(steps=10**6, log_every=1), name='a', output=Path(sys.argv[1]),\n"
        "               report=lambda line: print(line, flush=True))\n"
        "print('stopped by', result.stopped_by, 'after', result.state.step)"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", script, str(run_output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=root, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step 2/"):
            assert process.poll() is None
        process.terminate()
        last = process.stdout.read().splitlines()[-1]
    assert process.returncode == 0
    step = metrics_of(run_output, "a")[-1]["step"]
    assert last == f"stopped by SIGTERM after {step}"
    checkpoint = latest_checkpoint(run_output / "training" / "a" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == f"step-{step:08d}"
