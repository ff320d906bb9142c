"""The libraries that divide samples among processes: no row is missing, and each update has its own rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from colophon.shards.reader import PackedDataset as PackedReader
from colophon.torch import (
    PackedDataset,
    PackedIterableDataset,
    TrainingDataset,
    collate_for_transformers,
    collate_varlen,
)
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.errors import TrainerError
from tests.trainer.runs import config

STEPS, BATCH_SIZE, PROCESSES = 5, 8, 2
SETTINGS = {"layout": "prepend", "steps": STEPS, "batch_size": BATCH_SIZE}


def rows_by_update(run: Path) -> list[list[list[int]]]:
    data = TrainingData(config("prepend", steps=STEPS), output=run)
    return [sorted(data.batch(step + 1).input_ids.tolist()) for step in range(STEPS)]


def test_accelerate_shares_the_rows_of_each_update(packed_run: Path) -> None:
    data_loader = pytest.importorskip("accelerate.data_loader", reason="needs accelerate")
    dataset, each = TrainingDataset(packed_run, SETTINGS), BATCH_SIZE // PROCESSES
    sampler = BatchSampler(SequentialSampler(dataset), each, drop_last=False)
    shards = [data_loader.BatchSamplerShard(sampler, PROCESSES, process) for process in range(PROCESSES)]
    batches = [
        [row for indices in of_processes for row in (dataset[i]["input_ids"].tolist() for i in indices)]
        for of_processes in zip(*shards, strict=True)
    ]
    assert [sorted(rows) for rows in batches] == rows_by_update(packed_run)


def test_accelerate_shares_a_stream(packed_run: Path) -> None:
    data_loader = pytest.importorskip("accelerate.data_loader", reason="needs accelerate")
    each = BATCH_SIZE // PROCESSES
    found: list[list[Any]] = [[] for _ in range(STEPS)]
    for process in range(PROCESSES):
        stream = PackedIterableDataset(packed_run, SETTINGS, rows_at_once=each)
        shard = data_loader.IterableDatasetShard(stream, each, num_processes=PROCESSES, process_index=process)
        for number, sample in enumerate(shard):
            found[number // each].append(sample["input_ids"].tolist())
    assert [sorted(rows) for rows in found] == rows_by_update(packed_run)


def test_grain_reads_every_row_once(packed_run: Path) -> None:
    grain = pytest.importorskip("grain", reason="needs grain")
    dataset = PackedDataset(packed_run, "prepend")
    batches = grain.MapDataset.source(dataset).shuffle(seed=1).batch(4)
    found = [ids.tolist() for batch in batches for ids in batch["input_ids"]]
    assert sorted(found) == sorted(sample["input_ids"].tolist() for sample in dataset)


def test_grain_reads_a_training_in_order(packed_run: Path) -> None:
    grain = pytest.importorskip("grain", reason="needs grain")
    batches = grain.MapDataset.source(TrainingDataset(packed_run, SETTINGS)).batch(BATCH_SIZE)
    assert [sorted(batch["input_ids"].tolist()) for batch in batches] == rows_by_update(packed_run)


def test_arguments_of_flash_attention_are_the_segments(packed_run: Path) -> None:
    dataset, reader = PackedDataset(packed_run, "prepend"), PackedReader.open(packed_run, "prepend")
    joined = collate_varlen([dataset[row] for row in range(5)])
    packed = reader.rows(range(5))
    expected = packed.cu_seqlens()
    assert joined["cu_seq_lens_q"].tolist() == joined["cu_seq_lens_k"].tolist() == expected.tolist()
    assert joined["cu_seq_lens_q"].dtype == torch.int32
    assert joined["max_length_q"] == joined["max_length_k"] == max(expected[1:] - expected[:-1])
    assert joined["input_ids"].tolist() == [packed.input_ids[:, :-1].reshape(-1).tolist()]
    assert torch.equal(joined["labels"], joined["shift_labels"])


def test_weights_that_a_loss_cannot_have_are_refused(packed_run: Path) -> None:
    loader = DataLoader(PackedDataset(packed_run, "append"), batch_size=8, collate_fn=collate_for_transformers)
    with pytest.raises(TrainerError, match=r"loss weight 0\.5: the losses of transformers have 0 and 1 alone"):
        list(loader)
