from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.trainer.config import CosineSchedule, ScheduleConfig, WsdSchedule
from colophon.trainer.optimization.schedule import learning_rate


def rates(schedule: ScheduleConfig, steps: int) -> list[float]:
    return [learning_rate(step, steps=steps, peak=1.0, schedule=schedule) for step in range(1, steps + 1)]


def test_cosine_golden() -> None:
    schedule = CosineSchedule(warmup_steps=2, min_lr_ratio=0.1)
    expected = [0.5, 1.0, *(0.55 + 0.45 * math.cos(math.pi * t) for t in (0.2, 0.4, 0.6, 0.8))]
    assert rates(schedule, 6) == pytest.approx(expected)


def test_wsd_linear_golden() -> None:
    schedule = WsdSchedule(type="wsd", warmup_steps=2, decay_fraction=0.4, decay="linear")
    assert rates(schedule, 10) == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_wsd_1_sqrt_golden() -> None:
    schedule = WsdSchedule(type="wsd", warmup_steps=0, decay_fraction=0.5, decay="1-sqrt", min_lr_ratio=0.2)
    expected = [1, 1, 1, 1, *(0.2 + 0.8 * (1 - math.sqrt(t)) for t in (0.2, 0.4, 0.6, 0.8))]
    assert rates(schedule, 8) == pytest.approx(expected)


def test_the_papers_rates() -> None:
    steps = 48_440  # 100B tokens at 504 x 4096
    at = [learning_rate(s, steps=steps, peak=3e-4, schedule=CosineSchedule()) for s in (1, 1000, 2000, steps)]
    assert at == pytest.approx([1.5e-7, 1.5e-4, 3e-4, 3e-5])


def test_the_default_warm_up_is_a_tenth_of_a_short_run() -> None:
    assert CosineSchedule().warmup(500) == 50
    assert CosineSchedule().warmup(5) == 0
    assert CosineSchedule().warmup(100_000) == 2000


@given(
    steps=st.integers(1, 60),
    data=st.data(),
    lowest=st.floats(0, 1),
    kind=st.sampled_from(["cosine", "linear", "1-sqrt"]),
)
def test_a_rate_rises_to_the_peak_and_falls_to_the_lowest(
    steps: int, data: st.DataObject, lowest: float, kind: str
) -> None:
    warmup = data.draw(st.integers(0, steps - 1))
    schedule: ScheduleConfig
    if kind == "cosine":
        schedule = CosineSchedule(warmup_steps=warmup, min_lr_ratio=lowest)
    else:
        fraction = (steps - warmup) / steps
        schedule = WsdSchedule.model_validate(
            {"type": "wsd", "warmup_steps": warmup, "min_lr_ratio": lowest, "decay_fraction": fraction, "decay": kind}
        )
    found = rates(schedule, steps)
    assert all(a < b for a, b in pairwise(found[:warmup]))
    assert all(a >= b - 1e-12 for a, b in pairwise(found[warmup:]))
    assert max(found) <= 1
    assert found[-1] >= lowest
    if lowest < 1:
        assert found[-1] > lowest  # an update at the rate 0 would have no effect
