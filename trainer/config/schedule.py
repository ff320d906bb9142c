"""The learning-rate schedules' settings; `trainer.optimization.schedule` computes the rates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from colophon.trainer.config.base import Settings

PAPER_WARMUP_STEPS = 2000


class _Schedule(Settings):
    warmup_steps: int | None = Field(None, ge=0)
    """Steps of linear warm-up. None: the paper's 2,000, but at most a tenth of all steps."""
    min_lr_ratio: float = Field(0.1, ge=0, le=1)
    """The rate just after the last step, as a share of the highest."""

    def warmup(self, steps: int) -> int:
        """Warm-up steps of a run of `steps` steps."""
        return min(PAPER_WARMUP_STEPS, steps // 10) if self.warmup_steps is None else self.warmup_steps

    def decay_steps(self, steps: int) -> int:
        """Steps over which the rate falls at the end of a run of `steps` steps."""
        return steps - self.warmup(steps)

    def check(self, steps: int) -> None:
        """Refuse a warm-up and a decay that are longer than a run of `steps` steps."""
        warmup, decay = self.warmup(steps), self.decay_steps(steps)
        if warmup > steps:
            raise ValueError(f"schedule.warmup_steps {warmup} is more than the run's {steps} steps")
        if warmup + decay > steps:
            raise ValueError(f"warm-up of {warmup} and decay of {decay} steps are more than the run's {steps}")


class CosineSchedule(_Schedule):
    """Warm-up, then half a cosine down to the lowest rate.

    Example:

        [train.tiny]
        schedule = { type = "cosine", min_lr_ratio = 0.0 }
    """

    type: Literal["cosine"] = "cosine"


class WsdSchedule(_Schedule):
    """Warm-up, a stable phase, then decay over the last `decay_fraction` of all steps.

    Example:

        [train.tiny]
        schedule = { type = "wsd", decay_fraction = 0.1 }
    """

    type: Literal["wsd"]
    decay_fraction: float = Field(0.2, ge=0, le=1)
    """Share of all steps, at the end, in which the rate falls."""
    decay: Literal["1-sqrt", "linear"] = "1-sqrt"
    """Shape of the decay."""
    min_lr_ratio: float = Field(0.0, ge=0, le=1)

    def decay_steps(self, steps: int) -> int:
        """Steps over which the rate falls at the end of a run of `steps` steps."""
        return round(self.decay_fraction * steps)


ScheduleConfig = Annotated[CosineSchedule | WsdSchedule, Field(discriminator="type")]
