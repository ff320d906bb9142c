from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from colophon.shards.common.errors import ShardError
from colophon.trainer.checkpoint import latest_checkpoint
from colophon.trainer.errors import DivergedError, OutOfMemoryError, TrainerError
from colophon.trainer.loop import train
from tests.trainer.runs import LAYOUTS, config, write_run


class _Killed(Exception):
    """Takes the place of a kill: leaves the loop at once."""


def kill_at(step: int) -> Any:
    def report(line: str) -> None:
        if line.startswith(f"step {step}/") and "tokens/s" in line:
            raise _Killed

    return report


def metrics_of(output: Path, name: str) -> list[dict[str, Any]]:
    lines = (output / "training" / name / "metrics.jsonl").read_text().splitlines()
    machine_fields = {"tokens_per_second", "data_wait", "memory_gb", "mfu"}
    return [{k: v for k, v in json.loads(line).items() if k not in machine_fields} for line in lines]


def weights_of(output: Path, name: str) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(output / "training" / name / "checkpoints")
    assert checkpoint is not None
    return load_file(checkpoint / "model.safetensors") | load_file(checkpoint / "optimizer.safetensors")


def assert_same_end(output: Path, first: str, second: str) -> None:
    assert metrics_of(output, first) == metrics_of(output, second)
    expected, found = weights_of(output, first), weights_of(output, second)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("layout", ["prepend", "append"])
def test_a_run_killed_and_resumed_is_the_unbroken_run_to_the_bit(run_output: Path, layout: str) -> None:
    settings = config(layout, checkpoint_every=4, validation_every=2, log_every=1, learning_rate=1e-2)
    train(settings, name="unbroken", output=run_output)
    with pytest.raises(_Killed):
        train(settings, name="killed", output=run_output, report=kill_at(6))
    assert [m["step"] for m in metrics_of(run_output, "killed")] == [1, 2, 2, 3, 4, 4, 5, 6]
    lines: list[str] = []
    train(settings, name="killed", output=run_output, resume=True, report=lines.append)
    assert lines[0].startswith("resumed after step 4 from ")
    assert_same_end(run_output, "unbroken", "killed")


def test_a_run_killed_before_its_first_checkpoint_starts_again(run_output: Path) -> None:
    settings = config(log_every=1)
    train(settings, name="unbroken", output=run_output)
    with pytest.raises(_Killed):
        train(settings, name="killed", output=run_output, report=kill_at(3))
    train(settings, name="killed", output=run_output, resume=True)
    assert_same_end(run_output, "unbroken", "killed")


def test_a_half_written_line_of_metrics_is_cut(run_output: Path) -> None:
    settings = config(log_every=1, checkpoint_every=4)
    train(settings, name="unbroken", output=run_output)
    with pytest.raises(_Killed):
        train(settings, name="killed", output=run_output, report=kill_at(5))
    with (run_output / "training" / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    train(settings, name="killed", output=run_output, resume=True)
    assert_same_end(run_output, "unbroken", "killed")


def test_a_run_may_keep_no_checkpoints(run_output: Path) -> None:
    def report(line: str) -> None:
        if line.startswith("step 3/"):
            signal.raise_signal(signal.SIGTERM)

    settings = config(checkpoint_every=0, log_every=1)
    assert train(settings, name="a", output=run_output).state.step == 8
    assert train(settings, name="b", output=run_output, report=report).state.step == 3
    assert not list((run_output / "training").glob("*/checkpoints"))


def test_resuming_a_finished_run_changes_nothing(run_output: Path) -> None:
    settings = config()
    first = train(settings, name="a", output=run_output)
    before = metrics_of(run_output, "a")
    again = train(settings, name="a", output=run_output, resume=True)
    assert metrics_of(run_output, "a") == before
    assert (again.validation_text_loss, again.state) == (first.validation_text_loss, first.state)


def test_a_resumed_run_may_be_longer_and_reports_it(run_output: Path) -> None:
    schedule = {"type": "wsd", "warmup_steps": 2, "decay_fraction": 0.0}
    train(config(steps=4, schedule=schedule), name="a", output=run_output)
    lines: list[str] = []
    longer = config(steps=8, schedule=schedule)
    result = train(longer, name="a", output=run_output, resume=True, report=lines.append)
    assert result.state.step == 8
    assert "changed since the checkpoint: steps: 4 -> 8" in lines
    train(longer, name="b", output=run_output)
    assert all(torch.equal(a, weights_of(run_output, "b")[name]) for name, a in weights_of(run_output, "a").items())


def test_a_resume_with_fewer_steps_than_the_checkpoint_is_refused(run_output: Path) -> None:
    train(config(steps=8), name="a", output=run_output)
    before = metrics_of(run_output, "a")
    with pytest.raises(TrainerError, match=r"steps is 5, but .*step-00000008 is after 8 steps"):
        train(config(steps=5), name="a", output=run_output, resume=True)
    assert metrics_of(run_output, "a") == before


def test_the_size_of_micro_batches_changes_nothing_but_rounding(run_output: Path) -> None:
    losses = []
    for size in (8, 2):
        train(config("append", micro_batch_size=size), name=str(size), output=run_output)
        losses.append([m["loss"] for m in metrics_of(run_output, str(size)) if "loss" in m])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_resume_with_other_shards_is_refused(run_output: Path) -> None:
    settings = config(validation_rows=5)
    train(settings, name="a", output=run_output)
    write_run(run_output, num_documents=70)
    with pytest.raises(
        TrainerError, match=r"cannot resume from .*: shards: '\w+\.\.\. -> '\w+\.\.\.; training rows: \d"
    ):
        train(settings, name="a", output=run_output, resume=True)


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"batch_size": 4}, "batch_size: 8 -> 4"),
        ({"model": "1m"}, "model.num_layers: 2 -> 4; model.hidden_size: 64 -> 128"),
        ({"document_masking": False}, "document_masking: True -> False"),
        ({"validation_rows": 3}, "validation_rows: None -> 3"),
    ],
)
def test_a_resume_with_other_settings_is_refused(
    tmp_path: Path, packed_run: Path, settings: dict[str, Any], difference: str
) -> None:
    name = f"refused-{next(iter(settings))}"
    train(config(steps=1), name=name, output=packed_run)
    with pytest.raises(TrainerError) as raised:
        train(config(steps=1, **settings), name=name, output=packed_run, resume=True)
    assert difference in str(raised.value)


def test_an_existing_run_is_not_overwritten_unasked(run_output: Path) -> None:
    train(config(steps=1), name="a", output=run_output)
    before = (run_output / "training" / "a" / "metrics.jsonl").read_text()
    with pytest.raises(TrainerError, match="exists; resume it, overwrite it or give another name"):
        train(config(steps=2), name="a", output=run_output)
    with pytest.raises(TrainerError, match="not both"):
        train(config(steps=2), name="a", output=run_output, resume=True, overwrite=True)
    assert (run_output / "training" / "a" / "metrics.jsonl").read_text() == before
    train(config(steps=2), name="a", output=run_output, overwrite=True)
    assert [m["step"] for m in metrics_of(run_output, "a")] == [1, 2, 2]


def test_a_missing_layout_writes_nothing(run_output: Path) -> None:
    available = ", ".join(sorted(LAYOUTS))
    with pytest.raises(ShardError, match=f"has no layout 'prepent'; available: {available}"):
        train(config("prepent"), name="a", output=run_output)
    assert not (run_output / "training").exists()


def test_the_files_and_lines_of_a_run(run_output: Path) -> None:
    reported: list[str] = []
    settings = config("append", steps=6, validation_every=4, log_every=3)
    result = train(settings, name="a", output=run_output, report=reported.append)
    lines = [json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4, 5, 6, 6]
    steps = [line for line in lines if "loss" in line]
    for line in steps:
        assert line.keys() == {
            *("step", "loss", "text_loss", "metadata_loss", "metadata_accuracy", "tokens", "text_tokens", "lr"),
            *("grad_norm", "tokens_per_second", "data_wait", "mfu", "memory_gb", "skipped_batches"),
        }
        assert 0 <= line["metadata_accuracy"] <= 1
        assert line["grad_norm"] > 0
        assert line["tokens_per_second"] > 0
        assert 0 <= line["data_wait"] < 1
        assert line["mfu"] is None  # the peak of a CPU is not known
        assert 0.05 < line["memory_gb"] < 100
    assert all(a["tokens"] < b["tokens"] for a, b in pairwise(steps))
    assert steps[-1]["text_tokens"] < steps[-1]["tokens"] <= 6 * 8 * 48
    assert lines[-1].keys() == {
        *("step", "validation_text_loss", "validation_text_tokens"),
        *("validation_metadata_loss", "validation_metadata_accuracy"),
    }
    assert result.validation_text_loss == lines[-1]["validation_text_loss"]
    assert (result.loss, result.state.step, result.stopped_by) == (steps[-1]["loss"], 6, None)
    written = json.loads((result.directory / "config.json").read_text())
    assert type(settings).model_validate(written["config"]) == settings
    (layout,) = written["layouts"]
    assert (layout["output"], layout["name"], layout["position"]) == (str(run_output), "append", "append")
    assert written["sequence_length"] == 48
    assert [line.split("  ")[0] for line in reported if "tokens/s" in line] == ["step 1/6", "step 3/6", "step 6/6"]
    assert all("left" in line for line in reported if "tokens/s" in line)
    accuracy = lines[-1]["validation_metadata_accuracy"]
    assert any(line.startswith("step 6/6  validation text ") and f"({accuracy:.1%} right)" in line for line in reported)


def test_metadata_without_loss_weight_has_no_metadata_loss(packed_run: Path) -> None:
    train(config("prepend", steps=1), name="masked-metadata", output=packed_run)
    line = metrics_of(packed_run, "masked-metadata")[0]
    assert (line["metadata_loss"], line["metadata_accuracy"]) == (None, None)


def test_a_layout_without_loss_weight_is_refused(tmp_path: Path) -> None:
    layouts = {"plain": {"position": "plain", "role_weights": {"text": 0, "eos": 0}}}
    output = write_run(tmp_path / "run", layouts=layouts)
    with pytest.raises(TrainerError, match="no label of this run has loss weight"):
        train(config("plain"), name="a", output=output)


def test_batches_without_loss_weight_are_skipped_and_counted(run_output: Path) -> None:
    result = train(config("masked", steps=3), name="a", output=run_output)
    steps = [m for m in metrics_of(run_output, "a") if "loss" in m]
    assert [m["skipped_batches"] for m in steps] == [1, 2, 3]
    assert {(m["loss"], m["grad_norm"]) for m in steps} == {(None, None)}
    assert result.state.skipped_batches == 3
    train(config("masked", steps=1), name="b", output=run_output)
    found = weights_of(run_output, "a")
    assert all(torch.equal(found[name], weight) for name, weight in weights_of(run_output, "b").items())
    assert not any("exp_avg" in name for name in found)  # no step was made


def test_a_gradient_that_is_not_finite_ends_with_advice(run_output: Path) -> None:
    settings = config(
        steps=30, learning_rate=1e30, checkpoint_every=1, optimizer={"max_grad_norm": None}, validation_rows=0
    )
    with pytest.raises(DivergedError, match=r"step \d+: the gradient is (nan|inf); .*lower learning_rate"):
        train(settings, name="a", output=run_output)
    assert all(weight.isfinite().all() for weight in weights_of(run_output, "a").values())


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "masked"])
def test_a_few_rows_are_memorised(tmp_path: Path, layout: str) -> None:
    output = write_run(tmp_path, num_documents=4)
    settings = config(
        layout, steps=80, learning_rate=1e-2, batch_size=4, validation_rows=0, optimizer={"weight_decay": 0.0}
    )
    result = train(settings, name="a", output=output)
    lines = metrics_of(output, "a")
    first, last = lines[0], lines[-1]
    assert first["text_loss"] > 4
    if layout == "append":  # the text determines its metadata
        assert first["metadata_accuracy"] < 0.5
        assert last["metadata_accuracy"] == 1
    assert result.text_loss is not None
    assert result.text_loss < 0.5  # the first token of a document cannot be known from a few rows' order


def test_cuda_without_a_device_is_refused(packed_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainerError, match="device is cuda, but torch finds no CUDA device"):
        train(config(device="cuda"), name="cuda", output=packed_run)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB."),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        (RuntimeError, "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_ends_with_advice(
    run_output: Path, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: object, **__: object) -> None:  # a stand-in: a test must not use up a machine's memory
        raise error(f"{message}\nmore of it")

    monkeypatch.setattr("colophon.trainer.loop.accumulate_gradients", too_much)
    with pytest.raises(OutOfMemoryError) as raised:
        train(config(), name="a", output=run_output)
    assert str(raised.value) == (
        f"{message} Try micro_batch_size below 4, "
        "activation_checkpointing = true, more processes with parallel = 'fsdp', a smaller model or sequence_length"
    )


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
