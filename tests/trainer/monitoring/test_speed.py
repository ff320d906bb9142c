from __future__ import annotations

from datetime import timedelta

import pytest

from colophon.trainer.monitoring.speed import Pace, peak_flops


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GB200", 2500),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA L4", 121),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", None),
        ("NVIDIA H20", None),
        ("NVIDIA GeForce RTX 4090", 165),
        ("Tesla V100-SXM2-16GB", 125),
    ],
)
def test_the_peak_is_that_of_the_whole_name(name: str, tera: float | None) -> None:
    assert peak_flops(name) == (None if tera is None else tera * 1e12)


def test_the_first_step_is_not_the_pace_of_the_others() -> None:
    pace = Pace()
    assert pace.tokens_per_second is None
    assert pace.left(3) == timedelta(0)
    pace.add(100.0, tokens=50)
    assert pace.tokens_per_second == 0.5
    assert pace.left(3) == timedelta(seconds=300)
    for _ in range(4):
        pace.add(2.0, tokens=50)
    assert pace.tokens_per_second == 25
    assert pace.left(3) == timedelta(seconds=6)


def test_a_console_line_has_the_speed_of_all_steps_since_the_line_before() -> None:
    pace = Pace()
    pace.add(100.0, tokens=50)
    assert pace.since_line() == 0.5
    for seconds in (1.0, 4.0, 5.0):
        pace.add(seconds, tokens=50)
    assert pace.since_line() == 15
    pace.add(2.0, tokens=50)
    assert pace.since_line() == 25
