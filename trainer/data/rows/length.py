"""The length of a run in updates, where its settings give it in tokens of text (`text_tokens`).

The order of rows is a pure function of (seed, step) and the shards give each row's text, so the number of updates is
known before the first one: learning rates, phases and progress use it as they use `steps`. Cost: some tens of
microseconds an update.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from colophon.trainer.config import PhaseConfig, TrainConfig
from colophon.trainer.data.rows.phases import Phase
from colophon.trainer.data.rows.sources import Source
from colophon.trainer.errors import TrainerError


def with_length(config: TrainConfig, sources_of_phases: Sequence[Sequence[Source]]) -> TrainConfig:
    """The settings with their number of steps, and with the first step of each phase.

    Args:
        config: with `steps` or `text_tokens`.
        sources_of_phases: the sources before the first phase, then those of each phase.

    Raises:
        TrainerError: phases or schedule do not fit the number of steps that `text_tokens` gives.
    """
    if config.text_tokens is None:
        return config
    steps, starts = _length(config.text_tokens, config=config, sources_of_phases=sources_of_phases)
    return checked_length(config, steps, phase_starts=starts)


def checked_length(config: TrainConfig, steps: int, *, phase_starts: Sequence[int]) -> TrainConfig:
    """The settings of a run with `text_tokens`, of `steps` updates and with phases that start at these updates.

    Raises:
        TrainerError: phases or schedule do not fit the number of steps.
    """
    try:
        return config.with_length(steps, phase_starts=phase_starts)
    except ValueError as error:
        raise TrainerError(f"text_tokens {config.text_tokens:,} is {steps:,} steps: {error}") from None


def _length(
    budget: int, *, config: TrainConfig, sources_of_phases: Sequence[Sequence[Source]]
) -> tuple[int, list[int]]:
    """The number of the update that reaches `budget` text tokens, and the first update of each phase."""
    step, text, starts = 0, 0, list[int]()
    following: Sequence[PhaseConfig | None] = [*config.phases, None]
    for sources, next_phase in zip(sources_of_phases, following, strict=True):
        phase = Phase(sources, first_step=step + 1, batch_size=config.batch_size)
        fraction = 1.0 if next_phase is None else next_phase.from_fraction or 1.0
        last = math.inf if next_phase is None or next_phase.from_step is None else next_phase.from_step - 1
        until = math.ceil(fraction * budget)
        while step < last and text < until:
            step += 1
            text += phase.text_tokens(step)
        if next_phase is not None:
            starts.append(next_phase.from_step or step + 1)
    return step, starts


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase that has update `step`."""
    return next(phase for phase in reversed(phases) if phase.first_step <= step)
