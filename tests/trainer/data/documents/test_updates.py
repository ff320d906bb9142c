"""`order = "documents"`: update n has the same text tokens in every layout, each once an epoch."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colophon.shards.schema import Role
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.trained_model import load_trained
from colophon.trainer.loop import train
from tests.trainer.courses import Killed, assert_same_end, kill_at
from tests.trainer.data.documents.numbered import FIRST_TEXT_ID, SEQUENCE_LENGTH, text_labels, write_numbered
from tests.trainer.runs import TINY_MODEL, config

POSITIONS = ("plain", "prepend", "append", "meta_tokens")
NAMES = [f"{position}-{method}" for position in POSITIONS for method in ("concat", "best_fit")]
TOKENS = 4 * SEQUENCE_LENGTH
"""Text tokens in an update of `by_documents`."""
LENGTHS = st.lists(st.integers(0, 40), max_size=8)


def by_documents(layout: str, **options: Any) -> TrainConfig:
    return config(layout, **{"order": "documents", "batch_size": 4, "micro_batch_size": 1, **options})


@settings(max_examples=8, deadline=None)
@given(
    lengths=st.tuples(LENGTHS, LENGTHS.map(lambda found: [*found, 30, 31])),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 9),
    validation_rows=st.integers(0, 2),
)
def test_every_layout_has_the_same_text_in_every_update(
    lengths: tuple[list[int], list[int]], batch_size: int, seed: int, validation_rows: int
) -> None:
    options = {"batch_size": batch_size, "seed": seed, "validation_rows": validation_rows, "steps": 1}
    with TemporaryDirectory() as directory:
        output = write_numbered(Path(directory), lengths)
        opened = [TrainingData(by_documents(name, **options), output=output) for name in NAMES]
        held_out = {id for batch in opened[0].validation_batches() for id in text_labels(batch)}
        trained = set(range(sum(map(sum, lengths)))) - held_out
        tokens = batch_size * SEQUENCE_LENGTH
        labels: Counter[int] = Counter()
        for step in range(1, 2 * len(trained) // tokens + 2):  # two epochs and a part of the third
            first, *others = [text_labels(data.batch(step)) for data in opened]
            assert len(first) == tokens
            assert all(other == first for other in others)
            labels.update(first)
        assert set(labels) == trained
        assert set(labels.values()) <= {2, 3}
        for data in opened[1:]:
            assert {id for batch in data.validation_batches() for id in text_labels(batch)} == held_out
            assert data.summary() == opened[0].summary()


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    first, second = np.random.default_rng(3).integers(0, 60, (2, 40)).tolist()
    lengths = [first, [*second, -sum(first + second) % TOKENS]]  # an epoch is a whole number of updates
    return write_numbered(tmp_path_factory.mktemp("numbered"), lengths)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_bos_segments_then_padding_and_labels_are_of_one_update(numbered: Path, name: str) -> None:
    data = TrainingData(by_documents(name), output=numbered)
    special = data.tokenizer.special
    held_out = {id for batch in data.validation_batches() for id in text_labels(batch)}
    for step in range(1, 20):
        batch = data.batch(step)
        ids, segments = batch.tokens.long(), batch.segments
        opens = torch.diff(segments, dim=1, prepend=torch.full((len(ids), 1), -1)) != 0
        is_pad = ids == special.pad
        assert ((ids == special.bos) | is_pad)[opens].all()
        assert (ids == special.bos).sum() == opens.sum() - is_pad.any(dim=1).sum()
        assert (torch.diff(is_pad.int(), dim=1) >= 0).all()  # padding is last
        assert (batch.roles[is_pad] == Role.PAD).all()
        assert (batch.loss_weights[batch.label_roles == Role.PAD] == 0).all()
        assert not held_out & set((ids[ids >= FIRST_TEXT_ID] - FIRST_TEXT_ID).tolist())
        for row, of_row in zip(ids.tolist(), segments.tolist(), strict=True):
            pairs = pairwise([(id, segment) for id, segment in zip(row, of_row, strict=True) if id >= FIRST_TEXT_ID])
            # A segment is whole, so that its labels have their context.
            assert all(after[0] == before[0] + 1 for before, after in pairs if before[1] == after[1])


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_rows_of_an_update(numbered: Path, world_size: int) -> None:
    data = TrainingData(by_documents("prepend-concat", batch_size=6), output=numbered)
    for step in (1, 4, 9):
        parts = [data.batch(step, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert len({len(part) for part in parts}) == 1
        assert sorted(id for part in parts for id in text_labels(part)) == text_labels(data.batch(step))
        validation = [list(data.validation_batches(rank=rank, world_size=world_size)) for rank in range(world_size)]
        assert len({len(batches) for batches in validation}) == 1


def test_metadata_and_eos_are_labels_once_an_epoch(numbered: Path) -> None:
    data = TrainingData(by_documents("append-concat", validation_rows=0), output=numbered)
    roles = data.dataset.rows(np.arange(len(data.dataset))).roles[:, 1:]
    steps = int((roles == Role.TEXT).sum()) // TOKENS
    found: Counter[int] = Counter()
    for step in range(1, steps + 1):
        found.update(data.batch(step).label_roles.flatten().tolist())
    for role in (Role.TEXT, Role.METADATA, Role.WRAPPER, Role.EOS):
        assert found[role] == (roles == role).sum() > 0


def test_a_phase_continues_the_documents_of_the_layout_before_it(numbered: Path) -> None:
    phases = [{"from_step": 5, "layout": "plain-best_fit"}]
    mixed = TrainingData(by_documents("prepend-concat", phases=phases), output=numbered)
    plain = TrainingData(by_documents("plain-concat"), output=numbered)
    for step in range(1, 9):
        batch = mixed.batch(step)
        assert text_labels(batch) == text_labels(plain.batch(step))
        assert bool((batch.roles == Role.WRAPPER).any()) == (step < 5)


def test_a_run_killed_and_resumed_is_the_unbroken_run_to_the_bit(numbered: Path, tmp_path: Path) -> None:
    output = shutil.copytree(numbered, tmp_path / "run")
    options = by_documents(
        "prepend-concat", model={**TINY_MODEL, "num_layers": 1}, log_every=1, checkpoint_every=2, steps=5
    )
    result = train(options, name="unbroken", output=output)
    assert result.state.text_tokens == 5 * TOKENS
    with pytest.raises(Killed):
        train(options, name="killed", output=output, report=kill_at(3))
    train(options, name="killed", output=output, resume=True)
    assert_same_end(output, "unbroken", "killed")
    with pytest.raises(TrainerError, match="order: 'documents' -> None"):
        train(options.model_copy(update={"order": "rows"}), name="killed", output=output, resume=True)


@pytest.mark.parametrize("world_size", [1, 2])
def test_rows_of_padding_give_all_micro_batches_one_size(numbered: Path, world_size: int) -> None:
    data, place = TrainingData(by_documents("prepend-concat"), output=numbered), {"rank": 0, "world_size": world_size}
    counts = set()
    with closing(data.batches(1, row_multiple=4, **place)) as batches:
        for step in range(1, 9):
            padded, batch = next(batches), data.batch(step, **place)
            counts.add(len(batch))
            assert len(padded) == -(-len(batch) // 4) * 4
            for one, other in zip(vars(padded).values(), vars(batch).values(), strict=True):
                assert one is other is None or torch.equal(one[: len(batch)], other)
            assert (padded.roles[len(batch) :] == Role.PAD).all()
            assert not padded.loss_weights[len(batch) :].any()
    assert len(counts) > 1


def test_all_layouts_begin_with_the_same_weights(numbered: Path) -> None:
    options = {"learning_rate": 1e-30, "optimizer": {"weight_decay": 0.0}, "steps": 1, "validation_rows": 0}
    weights = []
    for name in ("plain-concat", "meta_tokens-concat"):
        settings = by_documents(name, model={**TINY_MODEL, "num_layers": 1}, **options)
        train(settings, name=f"first-{name}", output=numbered)
        weights.append(load_trained(numbered, f"first-{name}").model.state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_budget_in_text_is_the_same_number_of_steps_in_every_layout(numbered: Path) -> None:
    for name in NAMES:
        data = TrainingData(by_documents(name, steps=None, text_tokens=1000), output=numbered)
        assert (data.config.num_steps, data.text_tokens()) == (21, 21 * TOKENS)


@pytest.mark.parametrize(
    "options",
    [
        {"sources": [{"layout": "plain-concat"}, {"layout": "prepend-concat"}]},
        {"sources": [{"layout": "plain-concat", "output": "elsewhere"}]},
        {"curriculum": {"column": "quality"}},
        {"phases": [{"from_step": 2, "sources": [{"layout": "plain-concat", "row_weights": {"column": "a"}}]}]},
    ],
)
def test_mixtures_have_no_order_of_documents(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='order = "documents" takes one layout of the run itself at a time'):
        by_documents("plain-concat", **options)


def test_layouts_of_different_documents_have_no_common_order(tmp_path: Path) -> None:
    output = write_numbered(tmp_path, [[30, 40, 50]])
    other = write_numbered(tmp_path / "other", [[30, 40, 51]])
    (output / "packed" / "append-concat" / "0.arrow").write_bytes(
        (other / "packed" / "append-concat" / "0.arrow").read_bytes()
    )
    phases = [{"from_step": 2, "layout": "append-concat"}]
    with pytest.raises(TrainerError, match=r"'plain-concat' and 'append-concat' of .* have different documents"):
        TrainingData(by_documents("plain-concat", phases=phases), output=output)


def test_everything_held_out_leaves_nothing(numbered: Path) -> None:
    with pytest.raises(TrainerError, match="all documents are held out for validation: none is left to train on"):
        TrainingData(by_documents("plain-concat", validation_rows=10_000), output=numbered)
