"""`group_by`: text losses by annotation value; the sums over the groups of a column are those of all text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colophon.shards.common.errors import ShardError
from colophon.shards.schema import Role
from colophon.trainer.data.groups import EachDocument, TextGroups
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.loop import train
from colophon.trainer.monitoring.trackers import _scalars
from colophon.trainer.plots.curves import read_curves
from tests.trainer.annotated import NUM_DOCUMENTS, annotate
from tests.trainer.courses import metrics_of
from tests.trainer.runs import config, write_run

TOPICS = ["Games", "Food", None, "Games", "Travel"]


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = write_run(tmp_path_factory.mktemp("annotated"))
    annotate(
        output,
        topic=[TOPICS[i % len(TOPICS)] for i in range(NUM_DOCUMENTS)],
        number=[f"v{i}" for i in range(NUM_DOCUMENTS)],
    )
    return output


@pytest.mark.parametrize("order", ["rows", "documents"])
def test_the_groups_of_a_column_sum_to_the_text_loss(annotated: Path, order: str) -> None:
    columns = ["topic", "number"]
    settings = config("append", order=order, group_by=columns, steps=3, validation_every=2, validation_rows=6)
    train(settings, name=f"grouped-{order}", output=annotated)
    plain = settings.model_copy(update={"group_by": ()})
    train(plain, name=f"plain-{order}", output=annotated)
    records, without = metrics_of(annotated, f"grouped-{order}"), metrics_of(annotated, f"plain-{order}")
    seen: dict[str, set[str]] = {column: set() for column in columns}
    for record, other in zip(records, without, strict=True):
        prefix = "" if "loss" in record else "validation_"
        losses, tokens = record.pop(f"{prefix}text_loss_by"), record.pop(f"{prefix}text_tokens_by")
        assert record == other  # the groups change nothing else
        assert set(losses) == set(columns)
        for column in columns:
            assert losses[column].keys() == tokens[column].keys()
            total = sum(tokens[column].values())
            mean = sum(losses[column][value] * tokens[column][value] for value in losses[column]) / total
            seen[column] |= set(losses[column])
            assert mean == pytest.approx(record[f"{prefix}text_loss"], rel=1e-12)
    assert seen["topic"] == {"Games", "Food", "Travel", "(none)"}
    assert "(other)" in seen["number"]


@pytest.mark.parametrize("order", ["rows", "documents"])
@pytest.mark.parametrize("layout", ["plain", "prepend"])
def test_each_token_is_in_the_group_of_its_document(annotated: Path, order: str, layout: str) -> None:
    data = TrainingData(config(layout, order=order, group_by=["topic"]), output=annotated)
    assert data.groups is not None
    for step in (1, 4):
        batch, numbers = data.batch(step), data.traced(step)[1]
        assert batch.label_groups is not None
        groups = batch.label_groups[0].numpy().reshape(numbers[:, 1:].shape)
        is_text = (batch.label_roles == Role.TEXT).numpy()
        assert (numbers[:, 1:][is_text] >= 0).all()
        for group, number in zip(groups[is_text].tolist(), numbers[:, 1:][is_text].tolist(), strict=True):
            place = data.numbers.place(number)
            topic = TOPICS[(int(place.partition) * NUM_DOCUMENTS // 2 + place.row) % len(TOPICS)]
            assert data.groups.groups[group] == ("topic", topic or "(none)")


def test_of_many_values_the_most_frequent_have_their_own_group(annotated: Path) -> None:
    data = TrainingData(config(group_by=["number"]), output=annotated)
    assert isinstance(data.groups, TextGroups)
    values = [value for _, value in data.groups.groups]
    assert len(values) == 21
    assert values[-1] == "(other)"
    numbers = np.arange(data.numbers.num_documents)
    of_documents = data.groups.of(numbers[None])[0, 0]
    assert np.bincount(of_documents)[:20].tolist() == [1] * 20
    assert EachDocument(data.numbers).of(numbers[None]).tolist() == [[numbers.tolist()]]


def test_an_unknown_column_is_refused(annotated: Path) -> None:
    with pytest.raises(ShardError, match="no annotator has a column 'topics'; available: number, topic"):
        TrainingData(config(group_by=["topics"]), output=annotated)


def test_trackers_get_one_curve_a_group() -> None:
    record: dict[str, Any] = {"step": 3, "loss": None, "lr": 0.1, "text_loss_by": {"topic": {"Games": 2.5}}}
    assert _scalars(record) == {"lr": 0.1, "text_loss_by/topic/Games": 2.5}


def test_a_plot_has_a_curve_a_group(annotated: Path) -> None:
    train(config(group_by=["topic"], steps=2), name="drawn", output=annotated)
    curves = read_curves(annotated, ["drawn"], by="topic")
    assert {curve.name for curve in curves} == {f"drawn: {value}" for value in ("Games", "Food", "Travel", "(none)")}
    assert all(len(curve.x) for curve in curves)
