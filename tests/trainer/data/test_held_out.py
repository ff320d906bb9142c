from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from colophon.shards.reader import PackedDataset
from colophon.trainer.data.batch import read_batch
from colophon.trainer.data.held_out import choose_rows
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.errors import TrainerError
from tests.trainer.annotated import NUM_DOCUMENTS, annotate, text_tokens
from tests.trainer.data.rows.mixtures import first_sources, mixed, rows_of, sampled_rows
from tests.trainer.runs import LAYOUTS, config, write_run


def test_held_out_rows_are_not_trained_on(packed_run: Path) -> None:
    data = TrainingData(config(validation_rows=10), output=packed_run)
    assert len(data.validation_rows) == 10
    steps = data.num_rows // 7
    assert data.num_rows == len(data.dataset) - 10
    trained = torch.cat([data.batch(step).tokens for step in range(1, steps + 1)]).tolist()
    rows = read_batch(data.dataset, np.arange(len(data.dataset))).tokens.tolist()
    assert {rows.index(row) for row in trained}.isdisjoint(data.validation_rows)
    validated = torch.cat([batch.input_ids for batch in data.validation_batches()])
    assert torch.equal(validated, read_batch(data.dataset, data.validation_rows).input_ids)


def test_fewer_held_out_rows_are_a_part_of_more() -> None:
    assert set(choose_rows(50, count=3, seed=1)) < set(choose_rows(50, count=20, seed=1))


def held_documents(data: TrainingData) -> set[tuple[str, int]]:
    held_out = data.description(1).held_out
    return {(part.partition, document) for part in held_out for document in part.documents}


@pytest.mark.parametrize("layout", ["plain", "prepend", "meta_tokens"])
def test_held_out_documents_are_in_no_training_row(packed_run: Path, layout: str) -> None:
    data = TrainingData(config(layout, validation_rows=20), output=packed_run)
    in_rows = text_tokens(data.dataset) > 0
    trained = np.delete(in_rows, data.validation_rows, axis=0).any(axis=0)
    held = in_rows[data.validation_rows].any(axis=0) & ~trained
    described = [int(partition) * NUM_DOCUMENTS // 2 + document for partition, document in sorted(held_documents(data))]
    assert len(described) >= 10
    assert set(described) <= set(np.flatnonzero(held).tolist())


def test_layouts_hold_out_the_same_documents_up_to_the_number_of_rows(packed_run: Path) -> None:
    plain, prepend = (
        TrainingData(config(name, validation_rows=20), output=packed_run) for name in ("plain", "prepend")
    )
    other_seed = TrainingData(config("plain", validation_rows=20, seed=1), output=packed_run)
    found, other = held_documents(plain), held_documents(prepend)
    assert len(found & other) >= 0.7 * min(len(found), len(other))
    assert held_documents(other_seed) != found
    fewer = TrainingData(config("plain", validation_rows=3), output=packed_run)
    assert len(fewer.validation_rows) == 3
    assert held_documents(fewer) <= found


def test_rows_are_held_out_also_where_no_document_fits(tmp_path: Path) -> None:
    output = write_run(tmp_path / "run", sequence_length=16)  # most documents take several rows
    data = TrainingData(config("plain", validation_rows=3), output=output)
    assert len(data.validation_rows) == 3
    assert data.num_rows == len(data.dataset) - 3


def test_validation_on_a_different_run(packed_run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", seed=9, num_documents=20)
    data = TrainingData(config(validation_output=str(other)), output=packed_run)
    assert data.num_rows == len(data.dataset)
    validated = torch.cat([batch.labels for batch in data.validation_batches()])
    assert torch.equal(validated, read_batch(PackedDataset.open(other, "prepend"), data.validation_rows).labels)
    assert len(validated) == len(PackedDataset.open(other, "prepend"))


def test_validation_on_metadata_of_a_different_meaning_is_refused(run_output: Path, tmp_path: Path) -> None:
    strides = list(range(NUM_DOCUMENTS))
    annotate(run_output, stride=strides, edges=[0.0, 0.5])
    other = write_run(tmp_path / "other", seed=9)
    annotate(other, stride=strides, edges=[0.0, 0.5])
    TrainingData(config(validation_output=str(other)), output=run_output)
    annotate(other, stride=strides, edges=[0.0, 0.25])
    message = r"annotator 'quality' of .*other is not the one .* edges \[0, 0\.5\] in training, \[0, 0\.25\] here"
    with pytest.raises(TrainerError, match=message):
        TrainingData(config(validation_output=str(other)), output=run_output)
    TrainingData(config("plain", validation_output=str(other)), output=run_output)  # reads no metadata


def test_validation_on_a_different_layout_of_the_same_name_is_refused(run_output: Path, tmp_path: Path) -> None:
    layouts = {**LAYOUTS, "prepend": {**LAYOUTS["prepend"], "template": "{host}", "dropout": 0.5}}
    other = write_run(tmp_path / "other", layouts=layouts)
    message = r"other: layout 'prepend' has template '\{host\}', but '\{stride\}' in "
    with pytest.raises(TrainerError, match=message):
        TrainingData(config(validation_output=str(other)), output=run_output)


def test_nothing_left_to_train_on(packed_run: Path) -> None:
    with pytest.raises(TrainerError, match=r"layout 'plain' has \d+ rows, and 500 are held out"):
        TrainingData(config("plain", validation_rows=500), output=packed_run)


def test_held_out_documents_are_excluded_from_every_layout(packed_run: Path) -> None:
    data = TrainingData(mixed(validation_rows=5), output=packed_run)
    held = text_tokens(data.dataset)[data.validation_rows].any(axis=0)
    known = {layout: rows_of(packed_run, layout) for layout in ("prepend", "append", "plain")}
    samples = [sample for batch in sampled_rows(data, range(1, 9), known) for sample in batch]
    assert not {row for layout, row in samples if layout == "prepend"} & set(data.validation_rows.tolist())
    for layout in ("append", "plain"):
        dataset = PackedDataset.open(packed_run, layout)
        rows = [row for name, row in samples if name == layout]
        assert rows
        assert not text_tokens(dataset)[rows][:, held].any()
        without = (~text_tokens(dataset)[:, held].any(axis=1)).sum()
        both = mixed(validation_rows=5, sources=[{"layout": "prepend"}, {"layout": layout}])
        (source,) = first_sources(TrainingData(both, output=packed_run))[1:]
        assert len(source) == without


def test_validation_rows_of_another_run_are_not_trained_on(packed_run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", seed=5)
    settings = {"sources": [{"layout": "prepend"}, {"layout": "append", "output": str(other)}]}
    data = TrainingData(config(**settings, validation_output=str(other), validation_rows=4), output=packed_run)
    held = text_tokens(data.validation_dataset)[data.validation_rows].any(axis=0)
    kept = ~text_tokens(PackedDataset.open(other, "append"))[:, held].any(axis=1)
    assert data.num_rows == len(data.dataset) + kept.sum()
    with pytest.raises(
        TrainerError, match="all with documents that are held out for validation: none is left to train on"
    ):
        TrainingData(config(**settings, validation_output=str(other)), output=packed_run)
