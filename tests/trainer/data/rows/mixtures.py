"""Runs that mix several layouts, and the rows in their batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from colophon.shards.reader import PackedDataset
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.batch import read_batch
from colophon.trainer.data.rows.sources import Source
from colophon.trainer.data.rows.updates import RowUpdates
from colophon.trainer.data.training_data import TrainingData
from tests.trainer.runs import config

MIXED: dict[str, Any] = {
    "sources": [{"layout": "prepend", "weight": 3}, {"layout": "append", "weight": 1}],
    "phases": [{"from_step": 5, "layout": "plain"}],
}


ONE = {"batch_size": 1, "micro_batch_size": 1}


def mixed(**settings: Any) -> TrainConfig:
    return config(**{"layout": "prepend", **MIXED, **settings})


def first_sources(data: TrainingData) -> tuple[Source, ...]:
    """The sources before the first phase."""
    assert isinstance(data.updates, RowUpdates)
    return data.updates.phases[0].sources


def rows_of(output: Path, layout: str) -> dict[tuple[int, ...], int]:
    """The number of each of a layout's rows, by ids and roles."""
    dataset = PackedDataset.open(output, layout)
    batch = read_batch(dataset, np.arange(len(dataset)))
    return {
        (*ids, *roles): row
        for row, (ids, roles) in enumerate(zip(batch.tokens.tolist(), batch.roles.tolist(), strict=True))
    }


def sampled_rows(
    data: TrainingData, steps: range, known: dict[str, dict[tuple[int, ...], int]]
) -> list[list[tuple[str, int]]]:
    """Layout and row of each sample, by step."""
    found = []
    for step in steps:
        batch = data.batch(step)
        keys = [(*ids, *roles) for ids, roles in zip(batch.tokens.tolist(), batch.roles.tolist(), strict=True)]
        found.append([next((name, rows[key]) for name, rows in known.items() if key in rows) for key in keys])
    return found
