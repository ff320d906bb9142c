from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shards.layouts import PlainLayout
from shards.reader import PackedDataset
from shards.schema import ROLE_NAMES, Role
from tests.trainer.runs import LAYOUTS, SPECIAL, config, write_run
from trainer.data import TrainingData, batch_indices, choose_rows, epoch_order, read_batch
from trainer.errors import TrainerError


@given(num_rows=st.integers(1, 40), batch_size=st.integers(1, 17), seed=st.integers(0, 5), epochs=st.integers(1, 4))
def test_every_row_comes_once_an_epoch(num_rows: int, batch_size: int, seed: int, epochs: int) -> None:
    steps = -(-num_rows * epochs // batch_size)
    batches = [batch_indices(s, num_rows=num_rows, batch_size=batch_size, seed=seed) for s in range(1, steps + 1)]
    stream = np.concatenate(batches)[: num_rows * epochs].reshape(epochs, num_rows)
    assert (np.sort(stream, axis=1) == np.arange(num_rows)).all()


def test_epochs_and_seeds_differ() -> None:
    first = epoch_order(100, seed=0, epoch=0)
    assert not np.array_equal(first, epoch_order(100, seed=0, epoch=1))
    assert not np.array_equal(first, epoch_order(100, seed=1, epoch=0))


GOLDEN_ORDER = [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]


def test_the_order_is_the_one_that_checkpoints_were_made_with() -> None:
    # A change here breaks the resume of every run in the world: it must come with a new format of checkpoints.
    assert epoch_order(10, seed=0, epoch=0).tolist() == GOLDEN_ORDER
    assert batch_indices(3, num_rows=10, batch_size=4, seed=0).tolist() == [
        *GOLDEN_ORDER[8:],
        *epoch_order(10, seed=0, epoch=1)[:2].tolist(),
    ]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_same_global_batches(packed_run: Path, world_size: int) -> None:
    data = TrainingData(config(), output=packed_run)
    for step in (1, 5, 11):
        whole = data.batch(step)
        parts = [data.batch(step, rank=rank, world_size=world_size).input_ids for rank in range(world_size)]
        assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), whole.input_ids)


def test_a_stream_that_starts_late_is_the_same_stream(packed_run: Path) -> None:
    data = TrainingData(config(), output=packed_run)
    stream, late = data.batches(1), data.batches(4)
    early = [next(stream) for _ in range(6)]
    assert all(torch.equal(next(late).input_ids, batch.input_ids) for batch in early[3:])
    stream.close()
    late.close()


def test_an_error_of_the_reading_thread_reaches_the_loop(packed_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TrainingData(config(), output=packed_run)
    monkeypatch.setattr(data, "rows", np.array([10_000]))
    with pytest.raises(IndexError):
        next(data.batches(1))


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


def test_what_is_paid(packed_run: Path) -> None:
    def paid(layout: str) -> dict[int, set[float]]:
        data = TrainingData(config(layout, validation_rows=0), output=packed_run)
        batch = read_batch(data.dataset, data.rows)
        return {role: set(batch.loss_weights[batch.label_roles == role].tolist()) for role in Role}

    unpaid = {role: {0.0} for role in Role}
    assert paid("prepend") == {**unpaid, Role.TEXT: {1.0}, Role.EOS: {1.0}, Role.META_TOKEN: set()}
    assert paid("append")[Role.METADATA] == {0.5}
    assert paid("append")[Role.WRAPPER] == {1.0}
    assert paid("meta_tokens")[Role.META_TOKEN] == {0.0}
    assert PlainLayout(position="plain").weights()["bos"] == 0


def test_held_out_rows_are_not_trained_on(packed_run: Path) -> None:
    data = TrainingData(config(validation_rows=10), output=packed_run)
    assert len(data.validation_rows) == 10
    assert sorted([*data.rows, *data.validation_rows]) == list(range(len(data.dataset)))
    validated = torch.cat([batch.input_ids for batch in data.validation_batches()])
    assert torch.equal(validated, read_batch(data.dataset, data.validation_rows).input_ids)


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


def test_a_part_of_the_held_out_rows_is_held_out_first() -> None:
    assert set(choose_rows(50, count=3, seed=1)) < set(choose_rows(50, count=20, seed=1))


def test_validation_from_another_run(packed_run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", seed=9, num_documents=20)
    data = TrainingData(config(validation_output=str(other)), output=packed_run)
    assert len(data.rows) == len(data.dataset)
    validated = torch.cat([batch.labels for batch in data.validation_batches()])
    assert torch.equal(validated, read_batch(PackedDataset.open(other, "prepend"), data.validation_rows).labels)
    assert len(validated) == len(PackedDataset.open(other, "prepend"))


def test_nothing_left_to_train_on(packed_run: Path) -> None:
    with pytest.raises(TrainerError, match=r"layout 'plain' has \d+ rows, and 500 are held out"):
        TrainingData(config("plain", validation_rows=500), output=packed_run)


def test_splitting_a_batch_keeps_its_rows(packed_run: Path) -> None:
    batch = TrainingData(config(), output=packed_run).batch(1)
    parts = list(batch.split(3))
    assert [len(part) for part in parts] == [3, 3, 2]
    assert torch.equal(torch.cat([part.loss_weights for part in parts]), batch.loss_weights)
    assert (batch.input_ids[:, 0] == SPECIAL.bos).all()
