"""`text_tokens`: the number of steps follows from the text in the rows, before the first update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colophon.shards.schema import Role
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.errors import TrainerError
from colophon.trainer.loop import train
from tests.trainer.courses import Killed, assert_same_end, kill_at, metrics_of
from tests.trainer.runs import config

BUDGET = 5000


def budgeted(layout: str = "prepend", **settings: Any) -> TrainConfig:
    return config(layout, steps=None, **{"text_tokens": BUDGET, **settings})


def text_of(data: TrainingData, step: int) -> int:
    return int((data.batch(step).label_roles == Role.TEXT).sum())


@pytest.mark.parametrize("layout", ["plain", "prepend", "append", "meta_tokens"])
def test_a_run_ends_with_the_update_that_reaches_the_budget(packed_run: Path, layout: str) -> None:
    data = TrainingData(budgeted(layout), output=packed_run)
    steps = data.config.num_steps
    by_step = [text_of(data, step) for step in range(1, steps + 1)]
    assert sum(by_step[:-1]) < BUDGET <= sum(by_step)
    assert data.text_tokens() == sum(by_step)


def test_phases_of_a_budget_start_at_a_share_of_the_text(packed_run: Path) -> None:
    phases = [{"from_fraction": 0.5, "layout": "plain"}, {"from_step": 15, "layout": "append"}]
    data = TrainingData(budgeted(phases=phases), output=packed_run)
    steps, (half, third) = data.config.num_steps, data.config.phase_starts()
    by_step = [text_of(data, step) for step in range(1, steps + 1)]
    assert sum(by_step[: half - 2]) < BUDGET / 2 <= sum(by_step[: half - 1])
    assert (third, data.config.phases[0].from_step) == (15, half)
    assert sum(by_step[:-1]) < BUDGET <= sum(by_step)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"phases": [{"from_step": 90, "layout": "plain"}]}, "phases.0 starts at step 90, of {steps} steps"),
        ({"schedule": {"warmup_steps": 30}}, "schedule.warmup_steps 30 is more than the run's {steps} steps"),
    ],
)
def test_a_budget_that_is_too_small_is_refused(packed_run: Path, settings: dict[str, Any], message: str) -> None:
    steps = TrainingData(budgeted(), output=packed_run).config.num_steps
    with pytest.raises(TrainerError) as raised:
        TrainingData(budgeted(**settings), output=packed_run)
    assert str(raised.value) == f"text_tokens 5,000 is {steps} steps: {message.format(steps=steps)}"


def test_a_run_has_either_steps_or_a_budget() -> None:
    for lengths in ({"steps": 8, "text_tokens": BUDGET}, {"steps": None}):
        with pytest.raises(ValueError, match="a run has either steps or text_tokens"):
            config(**lengths)


def test_a_run_of_a_budget_is_the_run_of_its_steps_also_after_a_kill(run_output: Path) -> None:
    settings = budgeted(checkpoint_every=4, validation_every=4, log_every=1)
    lines: list[str] = []
    result = train(settings, name="unbroken", output=run_output, report=lines.append)
    steps = result.steps
    assert f"5,000 text tokens: {steps} steps" in lines
    assert result.state.step == steps > 6
    assert metrics_of(run_output, "unbroken")[-2]["text_tokens"] >= BUDGET
    same = settings.model_copy(update={"steps": steps, "text_tokens": None})
    train(same, name="steps", output=run_output)
    assert_same_end(run_output, "unbroken", "steps")
    with pytest.raises(Killed):
        train(settings, name="killed", output=run_output, report=kill_at(6))
    train(settings, name="killed", output=run_output, resume=True)
    assert_same_end(run_output, "unbroken", "killed")
