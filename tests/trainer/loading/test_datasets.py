"""Data sets for other loops: the samples are those of the bundled trainer, in its order, with any ranks and workers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from colophon.shards.common.errors import ShardError
from colophon.shards.reader import PackedDataset as PackedReader
from colophon.torch import IGNORED_LABEL, PackedDataset, PackedIterableDataset, Sample, TrainingDataset
from colophon.trainer.data.batch import Batch
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.errors import TrainerError
from tests.trainer.runs import LAYOUTS, config

SETTINGS: dict[str, dict[str, Any]] = {
    "one layout": {"layout": "prepend"},
    "fractional weights, all rows": {"layout": "append", "validation_rows": 0},
    "goldfish": {"layout": "plain", "goldfish": {"k": 3, "h": 4}},
    "mixture and phase": {
        "sources": [{"layout": "prepend", "weight": 2}, {"layout": "plain", "weight": 1}],
        "phases": [{"from_step": 5, "layout": "meta_tokens"}],
    },
}
STEPS, BATCH_SIZE = 9, 8


def settings_of(name: str) -> dict[str, Any]:
    return {"steps": STEPS, "batch_size": BATCH_SIZE, **SETTINGS[name]}


def data_of(run: Path, name: str) -> TrainingData:
    settings = settings_of(name)
    return TrainingData(config(settings.pop("layout", "prepend"), **settings), output=run)


def assert_is_row(sample: Sample, batch: Batch, row: int) -> None:
    """A sample has exactly the values that the bundled trainer uses, masked labels aside."""
    weights = batch.loss_weights[row]
    assert torch.equal(sample["input_ids"], batch.input_ids[row])
    assert torch.equal(sample["loss_weights"], weights)
    assert torch.equal(sample["labels"], batch.labels[row].masked_fill(weights == 0, IGNORED_LABEL))
    assert torch.equal(sample["positions"], batch.positions[row].long())
    assert torch.equal(sample["document_ids"], batch.input_segments[row].long())


def rows_of(collated: dict[str, torch.Tensor]) -> list[Sample]:
    return [{name: column[row] for name, column in collated.items()} for row in range(len(collated["input_ids"]))]


@pytest.mark.parametrize("name", SETTINGS)
def test_samples_are_those_of_the_bundled_trainer(packed_run: Path, name: str) -> None:
    dataset, data = TrainingDataset(packed_run, settings_of(name)), data_of(packed_run, name)
    assert len(dataset) == STEPS * BATCH_SIZE
    for index in range(len(dataset)):
        assert_is_row(dataset[index], data.batch(index // BATCH_SIZE + 1), index % BATCH_SIZE)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")  # more than this machine's cores
@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize(("rank", "world_size", "rows_at_once"), [(0, 1, None), (1, 2, 2), (2, 3, None)])
def test_a_stream_is_the_ranks_share_with_any_number_of_workers(
    packed_run: Path, num_workers: int, rank: int, world_size: int, rows_at_once: int | None
) -> None:
    stream = PackedIterableDataset(
        packed_run,
        settings_of("mixture and phase"),
        rank=rank,
        world_size=world_size,
        rows_at_once=rows_at_once,
    )
    loader = DataLoader(stream, batch_size=stream.rows_at_once, num_workers=num_workers)
    found = [sample for batch in loader for sample in rows_of(batch)]
    data = data_of(packed_run, "mixture and phase")
    expected = [data.batch(step + 1, rank=rank, world_size=world_size) for step in range(STEPS)]
    assert len(found) == len(stream) == sum(map(len, expected))
    for number, sample in enumerate(found):
        step, row = divmod(number, stream.rows_of_update)
        assert_is_row(sample, expected[step], row)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_state_continues_with_other_ranks_and_workers(packed_run: Path, num_workers: int) -> None:
    settings = settings_of("mixture and phase")
    state = PackedIterableDataset(packed_run, settings).state_dict(4)
    stream = PackedIterableDataset(packed_run, settings, rank=1, world_size=2)
    stream.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert stream.step == 4
    first = next(iter(DataLoader(stream, batch_size=stream.rows_at_once, num_workers=num_workers)))
    expected = data_of(packed_run, "mixture and phase").batch(5, rank=1, world_size=2)
    for row, sample in enumerate(rows_of(first)):
        assert_is_row(sample, expected, row)
    assert len(stream) == (STEPS - 4) * stream.rows_of_update


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "state: seed was 0, and is 1 now"),
        ({"batch_size": 4}, "state: batch_size was 8, and is 4 now"),
        ({"layout": "plain"}, r"state: data\.layouts\.prepend was"),
        ({"steps": 3}, "state: step 4 is invalid: expected 0 to 3"),
    ],
)
def test_a_state_of_other_data_is_refused(packed_run: Path, changed: dict[str, Any], message: str) -> None:
    state = PackedIterableDataset(packed_run, settings_of("one layout")).state_dict(4)
    other = PackedIterableDataset(packed_run, {**settings_of("one layout"), **changed})
    with pytest.raises(TrainerError, match=message):
        other.load_state_dict(state)
    assert other.step == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_as_stored(packed_run: Path, layout: str) -> None:
    dataset, reader = PackedDataset(packed_run, layout), PackedReader.open(packed_run, layout)
    packed = reader.rows(range(len(reader)))
    weights = packed.loss_weights(reader.role_weights)
    assert len(dataset) == len(reader)
    for row, sample in enumerate(dataset.__getitems__(range(len(dataset)))):
        assert sample["input_ids"].tolist() == packed.input_ids[row, :-1].tolist()
        assert sample["loss_weights"].tolist() == weights[row].tolist()
        shown = weights[row] > 0
        assert sample["labels"].numpy()[shown].tolist() == packed.input_ids[row, 1:][shown].tolist()
        assert set(sample["labels"].numpy()[~shown].tolist()) <= {IGNORED_LABEL}
    assert torch.equal(dataset[-1]["input_ids"], dataset[len(dataset) - 1]["input_ids"])


def test_data_sets_are_small_when_sent_to_workers(packed_run: Path) -> None:
    for dataset in (PackedDataset(packed_run, "plain"), TrainingDataset(packed_run, settings_of("one layout"))):
        sent = pickle.dumps(dataset)
        assert len(sent) < 4000
        assert torch.equal(pickle.loads(sent)[3]["input_ids"], dataset[3]["input_ids"])


def test_the_end_of_a_data_set(packed_run: Path) -> None:
    dataset = PackedDataset(packed_run, "plain")
    assert len(list(iter(dataset))) == len(dataset)
    with pytest.raises(IndexError, match="index 1000 is out of range"):
        dataset[1000]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "plain"}, "settings: a run has either steps or text_tokens"),
        ({"layout": "plain", "steps": 1, "batchsize": 3}, "settings: batchsize: Extra inputs are not permitted"),
        ({"layout": "plain", "steps": 1, "validation_rows": 1000}, "none is left to train on"),
    ],
)
def test_settings_are_checked(packed_run: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        TrainingDataset(packed_run, settings)


def test_the_arguments_are_checked(packed_run: Path) -> None:
    with pytest.raises(TrainerError, match="rank 2 of world_size 2: expected"):
        PackedIterableDataset(packed_run, settings_of("one layout"), rank=2, world_size=2)
    with pytest.raises(TrainerError, match="rows_at_once must be at least 1, got 0"):
        PackedIterableDataset(packed_run, settings_of("one layout"), rows_at_once=0)
    with pytest.raises(ShardError, match="available: append, masked, meta_tokens, plain, prepend"):
        PackedDataset(packed_run, "missing")


def test_settings_of_a_recipe_are_taken_as_they_are(packed_run: Path) -> None:
    assert TrainingDataset(packed_run, config("plain")).config == config("plain")
