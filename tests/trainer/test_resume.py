"""A resumed run is the unbroken run; a resume with other data or settings is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.trained_model import load_trained
from colophon.trainer.loop import train
from tests.trainer.courses import Killed, assert_same_end, kill_at, metrics_of, weights_of
from tests.trainer.runs import config, write_run

CONSTANT = {"type": "wsd", "warmup_steps": 2, "decay_fraction": 0.0}


@pytest.mark.parametrize("layout", ["prepend", "append"])
def test_a_run_killed_and_resumed_is_the_unbroken_run_to_the_bit(run_output: Path, layout: str) -> None:
    settings = config(layout, checkpoint_every=4, validation_every=2, log_every=1, learning_rate=1e-2)
    train(settings, name="unbroken", output=run_output)
    with pytest.raises(Killed):
        train(settings, name="killed", output=run_output, report=kill_at(6))
    assert [m["step"] for m in metrics_of(run_output, "killed")] == [1, 2, 2, 3, 4, 4, 5, 6]
    lines: list[str] = []
    train(settings, name="killed", output=run_output, resume=True, report=lines.append)
    assert lines[0].startswith("resumed after step 4 from ")
    assert_same_end(run_output, "unbroken", "killed")


def test_a_run_killed_before_its_first_checkpoint_starts_again(run_output: Path) -> None:
    settings = config(log_every=1)
    train(settings, name="unbroken", output=run_output)
    with pytest.raises(Killed):
        train(settings, name="killed", output=run_output, report=kill_at(3))
    train(settings, name="killed", output=run_output, resume=True)
    assert_same_end(run_output, "unbroken", "killed")


def test_a_half_written_line_of_metrics_is_cut(run_output: Path) -> None:
    settings = config(log_every=1, checkpoint_every=4)
    train(settings, name="unbroken", output=run_output)
    with pytest.raises(Killed):
        train(settings, name="killed", output=run_output, report=kill_at(5))
    with (run_output / "training" / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    train(settings, name="killed", output=run_output, resume=True)
    assert_same_end(run_output, "unbroken", "killed")


def test_resuming_a_finished_run_changes_nothing(run_output: Path) -> None:
    settings = config()
    first = train(settings, name="a", output=run_output)
    before = metrics_of(run_output, "a")
    again = train(settings, name="a", output=run_output, resume=True)
    assert metrics_of(run_output, "a") == before
    assert (again.validation_text_loss, again.state) == (first.validation_text_loss, first.state)


def test_a_resumed_run_may_be_longer_and_reports_it(run_output: Path) -> None:
    train(config(steps=4, schedule=CONSTANT), name="a", output=run_output)
    lines: list[str] = []
    longer = config(steps=8, schedule=CONSTANT)
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


def test_a_run_of_an_older_version_is_resumed(run_output: Path) -> None:
    train(config(steps=4, schedule=CONSTANT), name="a", output=run_output)
    directory = run_output / "training" / "a"
    for path in (directory / "config.json", directory / "checkpoints/step-00000004/state.json"):
        path.write_text(path.read_text().replace("mask_zero_weight_ids", "mask_unpaid_ids"))
    assert load_trained(run_output, "a").config == config(steps=4, schedule=CONSTANT)
    lines: list[str] = []
    result = train(config(schedule=CONSTANT), name="a", output=run_output, resume=True, report=lines.append)
    assert result.state.step == 8
    assert [line for line in lines if "changed" in line] == ["changed since the checkpoint: steps: 4 -> 8"]
