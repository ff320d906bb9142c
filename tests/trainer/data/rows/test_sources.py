from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from colophon.shards.reader import PackedDataset
from colophon.shards.schema import Role
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.errors import TrainerError
from colophon.trainer.model.masked_ids import zero_weight_ids
from tests.trainer.annotated import NUM_DOCUMENTS, annotate, text_tokens
from tests.trainer.data.rows.mixtures import ONE, first_sources, mixed, rows_of, sampled_rows
from tests.trainer.runs import config, write_run


def test_every_row_of_every_source_is_drawn_once_an_epoch(packed_run: Path) -> None:
    sources = [{"layout": "prepend"}, {"layout": "append"}, {"layout": "plain"}]
    data = TrainingData(config(sources=sources, batch_size=4), output=packed_run)
    known = {layout: rows_of(packed_run, layout) for layout in ("prepend", "append", "plain")}
    lengths = {name: len(source) for name, source in zip(known, first_sources(data), strict=True)}
    # In proportion to their rows, so all epochs end together.
    samples = [sample for batch in sampled_rows(data, range(1, data.num_rows // 4 + 1), known) for sample in batch]
    for name, length in lengths.items():
        rows = [row for layout, row in samples if layout == name]
        assert len(rows) == pytest.approx(length, abs=8)
        assert len(set(rows)) == min(len(rows), length)


def test_one_source_is_the_plain_run(packed_run: Path) -> None:
    alone = TrainingData(config(validation_rows=3), output=packed_run)
    named = TrainingData(config(validation_rows=3, sources=[{"layout": "prepend", "weight": 2}]), output=packed_run)
    for step in (1, 7, 30):
        assert torch.equal(alone.batch(step).tokens, named.batch(step).tokens)


def test_a_source_keeps_its_own_loss_weights(packed_run: Path) -> None:
    data = TrainingData(mixed(), output=packed_run)
    batch = data.batch(1)
    is_metadata = batch.label_roles == Role.METADATA
    assert set(batch.loss_weights[:6][is_metadata[:6]].tolist()) == {0.0}
    assert set(batch.loss_weights[6:][is_metadata[6:]].tolist()) == {0.5}
    # An id with loss weight in append is not masked because it has none in prepend.
    assert zero_weight_ids(data) == zero_weight_ids(PackedDataset.open(packed_run, "append"))
    assert zero_weight_ids(data) != zero_weight_ids(data.dataset)


def test_sources_of_other_runs(packed_run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", seed=5)
    sources = [{"layout": "prepend"}, {"layout": "prepend", "output": str(other)}]
    data = TrainingData(config(sources=sources, batch_size=60), output=packed_run)
    known = {"here": rows_of(packed_run, "prepend"), "there": rows_of(other, "prepend")}
    # Of the other run, all rows; of this one, all but the one held out.
    assert data.num_rows == len(known["here"]) - 1 + len(known["there"])
    assert {name for batch in sampled_rows(data, range(1, 3), known) for name, _ in batch} == {"here", "there"}


@pytest.mark.parametrize("column", ["table", "numbers"])
def test_rows_are_drawn_by_their_weights(run_output: Path, column: str) -> None:
    annotate(
        run_output, topic=["ab"[n % 2] for n in range(NUM_DOCUMENTS)], quality=[n % 2 for n in range(NUM_DOCUMENTS)]
    )
    weights: dict[str, Any] = {"column": "topic", "table": {"a": 0}} if column == "table" else {"column": "quality"}
    sources = [{"layout": "prepend", "row_weights": weights}]
    data = TrainingData(config(sources=sources, validation_rows=0, **ONE), output=run_output)
    tokens = text_tokens(data.dataset)
    expected = tokens[:, 1::2].sum(axis=1) / tokens.sum(axis=1)
    expected *= len(expected) / expected.sum()
    known = {"prepend": rows_of(run_output, "prepend")}
    assert len(known["prepend"]) == len(expected)  # no two rows are alike
    counts = np.bincount(
        [row for ((_, row),) in sampled_rows(data, range(1, 1 + len(expected)), known)], minlength=len(expected)
    )
    assert (counts >= np.floor(expected - 1e-6)).all()
    assert (counts <= np.ceil(expected + 1e-6)).all()


def test_a_curriculum_of_the_run_is_that_of_its_sources(run_output: Path) -> None:
    annotate(run_output, quality=list(range(NUM_DOCUMENTS)))
    curriculum = {"column": "quality", "order": "descending", "buckets": 10**6}
    data = TrainingData(config(curriculum=curriculum, **ONE), output=run_output)
    tokens = text_tokens(data.dataset)
    scores = (tokens * np.arange(NUM_DOCUMENTS)).sum(axis=1) / tokens.sum(axis=1)
    known = rows_of(run_output, "prepend")
    assert len(known) == len(data.dataset)  # no two rows are alike
    samples = sampled_rows(data, range(1, data.num_rows + 1), {"prepend": known})
    found = [scores[row] for ((_, row),) in samples]
    assert found == sorted(found, reverse=True)


def test_weights_of_0_alone_are_refused(run_output: Path) -> None:
    annotate(run_output, quality=[0] * NUM_DOCUMENTS)
    sources = [{"layout": "prepend", "row_weights": {"column": "quality"}}]
    with pytest.raises(TrainerError, match=r"layout 'prepend': row_weights\.column 'quality': all rows weigh 0"):
        TrainingData(config(sources=sources), output=run_output)
