from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from colophon.trainer.data.rows.phases import Phase
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.loop import train
from tests.trainer.data.rows.mixtures import mixed, rows_of, sampled_rows
from tests.trainer.runs import config


def test_layouts_are_mixed_by_weight_and_phases_switch_at_their_step(packed_run: Path) -> None:
    data = TrainingData(mixed(), output=packed_run)
    known = {layout: rows_of(packed_run, layout) for layout in ("prepend", "append", "plain")}
    samples = sampled_rows(data, range(1, 9), known)
    assert [[name for name, _ in batch] for batch in samples] == [["prepend"] * 6 + ["append"] * 2] * 4 + [
        ["plain"] * 8
    ] * 4


def test_a_run_reports_its_mixture(run_output: Path) -> None:
    lines: list[str] = []
    train(
        mixed(steps=5, phases=[{"from_fraction": 0.4, "layout": "plain"}]),
        name="a",
        output=run_output,
        report=lines.append,
    )
    assert re.fullmatch(r"from step 1: 75\.0% prepend \(58 rows\), 25\.0% append \(\d+ rows\)", lines[1])
    assert re.fullmatch(r"from step 3: 100\.0% plain \(\d+ rows\)", lines[2])
    assert TrainingData(config(), output=run_output).summary() == []


def test_a_phase_counts_from_its_own_first_step(packed_run: Path) -> None:
    early = TrainingData(mixed(), output=packed_run)
    late = TrainingData(mixed(steps=30, phases=[{"from_step": 21, "layout": "plain"}]), output=packed_run)
    for step in range(5, 9):
        assert torch.equal(early.batch(step).tokens, late.batch(step + 16).tokens)
    fraction = TrainingData(mixed(phases=[{"from_fraction": 0.5, "layout": "plain"}]), output=packed_run)
    for step in range(1, 9):
        assert torch.equal(early.batch(step).tokens, fraction.batch(step).tokens)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_join_to_the_same_mixed_batch(packed_run: Path, world_size: int) -> None:
    data = TrainingData(mixed(), output=packed_run)
    for step in (1, 3, 5, 8):
        whole = data.batch(step)
        parts = [data.batch(step, rank=rank, world_size=world_size) for rank in range(world_size)]
        for name in ("tokens", "roles", "segments", "loss_weights"):
            joined = torch.stack([getattr(part, name) for part in parts], dim=1).flatten(0, 1)
            assert torch.equal(joined, getattr(whole, name))


class _Numbers:
    """A source whose rows differ from those of every other number."""

    def __init__(self, number: int, weight: float) -> None:
        self.weight, self._number = weight, number

    def rows(self, samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self._number * 10**6 + samples


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=5),
    batch_size=st.integers(1, 30),
    world_size=st.integers(1, 8),
    first_step=st.integers(1, 50),
    steps=st.integers(1, 10),
)
def test_ranks_join_to_all_samples_of_all_sources(
    weights: list[float], batch_size: int, world_size: int, first_step: int, steps: int
) -> None:
    sources: list[Any] = [_Numbers(number, weight) for number, weight in enumerate(weights)]
    phase = Phase(sources, first_step=first_step, batch_size=batch_size)

    def rows(step: int, part: slice) -> list[int]:
        return [row for _, rows in phase.rows(step, part=part) for row in rows.tolist()]

    stream = []
    for step in range(first_step, first_step + steps):
        whole = rows(step, slice(None))
        for rank in range(world_size):
            assert rows(step, slice(rank, None, world_size)) == whole[rank::world_size]
        assert len(whole) == batch_size
        stream += whole
    seen = [sorted(row % 10**6 for row in stream if row // 10**6 == number) for number in range(len(weights))]
    assert seen == [list(range(len(samples))) for samples in seen]
