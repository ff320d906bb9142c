from __future__ import annotations

from contextlib import closing
from dataclasses import fields
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch

from colophon.shards.common.errors import ShardError
from colophon.shards.layouts import PlainLayout
from colophon.shards.reader import PackedDataset
from colophon.shards.schema import Role
from colophon.trainer.data import training_data
from colophon.trainer.data.batch import Batch, BatchBuffer, read_batch
from colophon.trainer.data.training_data import TrainingData
from tests.trainer.runs import config

GOLDEN_ROWS = {
    1: [17, 56, 29, 9, 55, 31, 51, 5],
    2: [44, 38, 11, 3, 49, 21, 24, 43],
    9: [27, 52, 4, 28, 1, 13, 50, 39],
    10: [44, 45, 40, 31, 19, 30, 32, 3],
    40: [58, 4, 51, 30, 39, 43, 32, 6],
}
"""Rows of `prepend` (59, one of them held out) by update."""


GOLDEN_SHARED = {
    "shards": "c9723515846a",
    "training rows": 58,
    "validation shards": "c9723515846a",
    "validation rows": "af5570f5a181",
}


def test_a_run_on_one_layout_sees_the_golden_rows(packed_run: Path) -> None:
    # A change here breaks the resume of every existing run: it requires a new format of checkpoints.
    data = TrainingData(config(), output=packed_run)
    for step, rows in GOLDEN_ROWS.items():
        expected = read_batch(PackedDataset.open(packed_run, "prepend"), np.array(rows))
        assert_same(data.batch(step), expected)
    found = data.fingerprints(8)
    (layout,) = found.pop("layouts")
    assert layout == "prepend"
    assert {key: value if isinstance(value, int) else value[:12] for key, value in found.items()} == GOLDEN_SHARED


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """The tensors by name; without `group_by` there are no groups."""
    found = {field.name: getattr(batch, field.name) for field in fields(Batch)}
    assert found.pop("groups") is None
    return found


def assert_same(batch: Batch, expected: Batch) -> None:
    for name, tensor in tensors(batch).items():
        assert torch.equal(tensor.cpu(), tensors(expected)[name]), name


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_same_global_batches(packed_run: Path, world_size: int) -> None:
    data = TrainingData(config(), output=packed_run)
    for step in (1, 5, 11):
        whole = data.batch(step)
        parts = [data.batch(step, rank=rank, world_size=world_size).input_ids for rank in range(world_size)]
        assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), whole.input_ids)


def test_a_stream_that_starts_late_is_the_same_stream(packed_run: Path) -> None:
    data = TrainingData(config(), output=packed_run)
    with closing(data.batches(4)) as late:
        for step in range(4, 30):
            assert_same(next(late), data.batch(step))


def test_a_batch_stays_while_the_next_one_is_read(packed_run: Path) -> None:
    data = TrainingData(config(), output=packed_run)
    read = Event()
    with closing(data.batches(1)) as stream, pytest.MonkeyPatch.context() as patched:
        first = next(stream)
        next(stream)  # the third is being read into the memory of the first
        whole = data.batch

        def batch(step: int, **where: Any) -> Batch:
            made = whole(step, **where)
            if step == 4:
                read.set()
            return made

        patched.setattr(data, "batch", batch)
        third = next(stream)
        assert read.wait(60)  # the fourth is read
        assert third.tokens.data_ptr() == first.tokens.data_ptr()
        assert_same(third, whole(3))


class _CopyEvent:
    """Stands for the event behind a batch's copies to a GPU."""

    def __init__(self, log: list[object]) -> None:
        self._log = log

    def synchronize(self) -> None:
        self._log.append("copied")


def test_page_locked_memory_is_filled_again_after_its_copies(packed_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[object] = []
    whole, buffer = TrainingData.batch, BatchBuffer

    def batch(self: TrainingData, step: int, **where: Any) -> Batch:
        log.append(step)
        return whole(self, step, **where)

    monkeypatch.setattr(TrainingData, "batch", batch)
    monkeypatch.setattr(training_data, "_recorded_event", lambda: _CopyEvent(log))
    monkeypatch.setattr(training_data, "BatchBuffer", lambda n, pin, **shape: buffer(n, **shape))
    with closing(TrainingData(config(), output=packed_run).batches(1, pin=True)) as stream:
        for _ in range(3):
            next(stream)
    assert log == [1, "copied", 2, "copied", 3, "copied", 4]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_every_batch_though_its_memory_is_filled_again(packed_run: Path) -> None:
    data, device = TrainingData(config(), output=packed_run), torch.device("cuda")
    with closing(data.batches(1, pin=True)) as stream:
        copied = []
        for _ in range(50):
            batch = next(stream)
            assert batch.tokens.is_pinned()
            copied.append(batch.to(device))  # waits for nothing
    for step, batch in enumerate(copied, 1):
        assert_same(batch, data.batch(step))


@pytest.mark.parametrize("world_size", [1, 3])
def test_reading_ahead_reuses_two_buffers(packed_run: Path, world_size: int) -> None:
    data = TrainingData(config(batch_size=9, micro_batch_size=3), output=packed_run)
    with closing(data.batches(1, rank=world_size - 1, world_size=world_size)) as stream:
        batches = [next(stream) for _ in range(20)]
        places = {tuple(tensor.data_ptr() for tensor in tensors(batch).values()) for batch in batches}
    assert len(places) == 2


def test_an_error_of_the_reading_thread_reaches_the_loop(packed_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TrainingData(config(), output=packed_run)

    def fail(*rows: Any, **into: Any) -> None:
        raise ShardError("damaged")

    monkeypatch.setattr(data.dataset, "rows", fail)
    with pytest.raises(ShardError, match="damaged"), closing(data.batches(1)) as stream:
        next(stream)


def test_loss_weights_by_role(packed_run: Path) -> None:
    def weights(layout: str) -> dict[int, set[float]]:
        data = TrainingData(config(layout, validation_rows=0), output=packed_run)
        batch = read_batch(data.dataset, np.arange(data.num_rows))
        return {role: set(batch.loss_weights[batch.label_roles == role].tolist()) for role in Role}

    masked = {role: {0.0} for role in Role}
    assert weights("prepend") == {**masked, Role.TEXT: {1.0}, Role.EOS: {1.0}, Role.META_TOKEN: set()}
    assert weights("append")[Role.METADATA] == {0.5}
    assert weights("append")[Role.WRAPPER] == {1.0}
    assert weights("meta_tokens")[Role.META_TOKEN] == {0.0}
    assert PlainLayout(position="plain").weights()["bos"] == 0


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_validate_every_row_once_in_equally_many_batches(packed_run: Path, world_size: int) -> None:
    data = TrainingData(config(validation_rows=10), output=packed_run)
    by_rank = [list(data.validation_batches(rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in by_rank}) == 1
    rows = [
        row.tolist()
        for batches in by_rank
        for batch in batches
        for row, roles in zip(batch.tokens, batch.roles, strict=True)
        if (roles != Role.PAD).any()
    ]
    expected = read_batch(data.dataset, data.validation_rows).tokens.tolist()
    assert sorted(rows) == sorted(expected)
