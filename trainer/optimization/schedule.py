"""Learning rates as pure functions of the step. Steps count from 1: the first update is step 1, the last is `steps`."""

from __future__ import annotations

import math

from colophon.trainer.config import CosineSchedule, ScheduleConfig, WsdSchedule


def learning_rate(step: int, *, steps: int, peak: float, schedule: ScheduleConfig) -> float:
    """The rate of update `step` (1..steps): linear up to `peak` over the warm-up, then down by the schedule.

    The lowest rate would be that of update `steps` + 1: where it is 0, an update at that rate would have no effect.
    """
    warmup = schedule.warmup(steps)
    if step <= warmup:
        return peak * step / warmup
    lowest = peak * schedule.min_lr_ratio
    decay_steps = schedule.decay_steps(steps)
    done = max(0.0, (step - (steps - decay_steps)) / (decay_steps + 1))
    return lowest + (peak - lowest) * _share_left(done, schedule)


def _share_left(done: float, schedule: CosineSchedule | WsdSchedule) -> float:
    """The remaining share of peak - lowest when the share `done` (0..1) of the decay is over."""
    if isinstance(schedule, CosineSchedule):
        return (1 + math.cos(math.pi * done)) / 2
    return 1 - done if schedule.decay == "linear" else 1 - math.sqrt(done)
