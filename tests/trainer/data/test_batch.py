from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from colophon.shards.reader import PackedDataset
from colophon.shards.schema import ROLE_NAMES, Role
from colophon.trainer.data.batch import read_batch
from colophon.trainer.data.training_data import TrainingData
from tests.trainer.runs import LAYOUTS, SPECIAL, config


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_by_brute_force_from_the_runs(packed_run: Path, layout: str) -> None:
    dataset = PackedDataset.open(packed_run, layout)
    rows = np.arange(len(dataset))
    batch = read_batch(dataset, rows)
    weights = dataset.info.role_weights
    for i in rows:
        file, local = dataset.locate(int(i))
        ids = file.input_ids[local].tolist()
        expected = []
        segment, position = -1, 0
        for length, role, _ in zip(*file.runs(local), strict=True):
            for _ in range(length):
                position += 1
                if role == Role.BOS or (role == Role.PAD and expected[-1][0] != Role.PAD):
                    segment, position = segment + 1, 0
                expected.append((int(role), segment, position))
        assert batch.input_ids[i].tolist() == ids[:-1]
        assert batch.labels[i].tolist() == ids[1:]
        assert batch.label_roles[i].tolist() == [role for role, _, _ in expected[1:]]
        assert batch.loss_weights[i].tolist() == [weights[ROLE_NAMES[role]] for role, _, _ in expected[1:]]
        assert batch.input_segments[i].tolist() == [segment for _, segment, _ in expected[:-1]]
        assert batch.positions[i].tolist() == [position for _, _, position in expected[:-1]]


def test_splitting_a_batch_keeps_its_rows(packed_run: Path) -> None:
    batch = TrainingData(config(), output=packed_run).batch(1)
    parts = list(batch.split(3))
    assert [len(part) for part in parts] == [3, 3, 2]
    assert torch.equal(torch.cat([part.loss_weights for part in parts]), batch.loss_weights)
    assert (batch.input_ids[:, 0] == SPECIAL.bos).all()
