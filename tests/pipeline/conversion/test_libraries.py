"""The real libraries open what a conversion writes. Those that are not packages of development are skipped."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from colophon.pipeline.conversion.conversion import Conversion
from colophon.shards.reader import PackedDataset


def library(name: str, package: str) -> ModuleType:
    """A module of a library; the test is skipped without it. Warnings at its import are its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"needs {package}", exc_type=ImportError)  # type: ignore[no-any-return]


EXAMPLES = Path(__file__).parents[3] / "examples" / "trainers"


def example(name: str) -> Any:
    """The names of an example."""
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / f"{name}.py")))


class Case:
    """A conversion of one layout, and the rows that it has."""

    def __init__(self, run: Path, directory: Path, *, layout: str, to: str) -> None:
        self.directory = directory
        self.dataset = PackedDataset.open(run, layout)
        self.packed = self.dataset.rows(range(len(self.dataset)))
        self.weights = self.packed.loss_weights(self.dataset.role_weights)
        self.width = self.dataset.sequence_length + 1
        Conversion(run, layout=layout, to=to).write(directory)

    def files(self, pattern: str) -> list[str]:
        return sorted(map(str, self.directory.glob(pattern)))


def test_megatron_core(packed: Path, tmp_path: Path) -> None:
    indexed = library("megatron.core.datasets.indexed_dataset", "megatron-core").IndexedDataset
    case = Case(packed, tmp_path / "converted", layout="append", to="megatron")
    ids, weights, lengths = (indexed(str(case.directory / name)) for name in ("ids", "loss_weights", "segment_lengths"))
    assert len(ids) == len(weights) == len(lengths) == len(case.dataset)
    assert ids.document_indices.tolist() == list(range(len(ids) + 1))
    for row in range(len(ids)):
        assert np.array_equal(ids[row], case.packed.input_ids[row])
        assert np.array_equal(weights[row][1:], case.weights[row])
        assert np.array_equal(lengths[row], np.bincount(case.packed.segments[row]))


def test_the_example_for_megatron(packed: Path, tmp_path: Path) -> None:
    """Each sample of Megatron's own shuffling is a row, with its weights and positions."""
    library("megatron.core.datasets.gpt_dataset", "megatron-core")
    case = Case(packed, tmp_path / "converted", layout="append", to="megatron")
    dataset = example("read_megatron").LayoutDataset(case.directory)
    rows = {tuple(ids): row for row, ids in enumerate(case.packed.input_ids.tolist())}
    found, positions = [], case.packed.positions()
    for index in range(len(dataset)):
        sample = dataset[index]
        row = rows[tuple(sample["tokens"].tolist())]
        found.append(row)
        assert np.array_equal(sample["labels"][:-1], case.packed.input_ids[row, 1:])
        assert np.array_equal(sample["loss_mask"], [*case.weights[row], 0])
        assert np.array_equal(sample["position_ids"], positions[row])
    assert sorted(found) == list(range(len(case.dataset)))


@pytest.mark.filterwarnings("ignore:.*unclosed file")  # its own
def test_mosaicml_streaming(packed: Path, tmp_path: Path) -> None:
    streaming = library("streaming", "mosaicml-streaming")
    case = Case(packed, tmp_path / "converted", layout="append", to="mds")
    dataset = streaming.LocalDataset(local=str(case.directory))
    assert len(dataset) == len(case.dataset)
    for row in range(len(dataset)):
        sample = dataset[row]
        assert np.array_equal(sample["input_ids"], case.packed.input_ids[row])
        assert np.array_equal(sample["loss_weights"], case.weights[row])
        assert sample["cu_seqlens"].tolist() == case.dataset.rows([row]).cu_seqlens().tolist()
        assert sample["partition"] == case.dataset.locate(row)[0].path.stem


def test_olmo_core(packed: Path, tmp_path: Path) -> None:
    numpy_dataset = library("olmo_core.data.numpy_dataset", "ai2-olmo-core")
    from olmo_core.data.utils import get_labels, iter_document_indices

    case = Case(packed, tmp_path / "converted", layout="prepend", to="npy")
    special = case.dataset.tokenizer.special
    dataset = numpy_dataset.NumpyFSLDataset(
        *case.files("ids/*.npy"),
        sequence_length=case.width,
        pad_token_id=special.pad,
        eos_token_id=special.eos,
        bos_token_id=special.bos,
        vocab_size=case.dataset.tokenizer.num_ids,
        dtype=np.uint16,
        label_mask_paths=case.files("label_mask/*.npy"),
    )
    assert len(dataset) == len(case.dataset)
    for row in range(len(dataset)):
        item = dataset[row]
        assert np.array_equal(item["input_ids"], case.packed.input_ids[row])
        labels = get_labels({name: value[None] for name, value in item.items() if torch.is_tensor(value)})[0, :-1]
        expected = np.where(case.weights[row] > 0, case.packed.input_ids[row, 1:].astype(int), -100)
        assert np.array_equal(labels, expected)
    ends = [end for _, end in iter_document_indices(case.files("ids/*.npy")[0], use_array_if_local=False)]
    numbers = case.packed.segments + np.arange(len(case.dataset))[:, None] * case.width  # all differ
    text_ends = np.flatnonzero(np.diff(numbers.reshape(-1), append=-1) != 0) + 1
    padding = case.packed.roles.reshape(-1)[text_ends - 1] == 0
    assert ends == text_ends[~padding].tolist()


def test_datatrove(packed: Path, tmp_path: Path) -> None:
    from datatrove.utils.dataset import DatatroveFolderDataset

    case = Case(packed, tmp_path / "converted", layout="prepend", to="nanotron")
    dataset: Any = DatatroveFolderDataset(
        str(case.directory), seq_len=case.dataset.sequence_length, token_size=2, return_positions=True
    )
    assert len(dataset) == len(case.dataset)
    masked = example("read_nanotron").LayoutDataset(case.directory)
    positions = case.packed.positions()
    for row in range(len(dataset)):
        item = dataset[row]
        assert np.array_equal(item["input_ids"], case.packed.input_ids[row])
        assert np.array_equal(item["positions"], positions[row])
        assert np.array_equal(masked[row]["label_ids"], case.packed.input_ids[row, 1:])
        assert np.array_equal(masked[row]["label_mask"], case.weights[row] > 0)


def test_hugging_face_datasets_polars_and_duckdb(packed: Path, tmp_path: Path) -> None:
    import datasets
    import duckdb
    import polars as pl

    case = Case(packed, tmp_path / "converted", layout="append", to="parquet")
    loaded = datasets.load_dataset(str(case.directory), cache_dir=str(tmp_path / "cache"), split="train")
    frame = pl.read_parquet(case.directory / "data")
    counted = duckdb.sql(f"select loss_weights from '{case.directory}/data/*.parquet'").fetchall()
    expected = case.weights.tolist()
    assert loaded["loss_weights"][:] == expected
    assert frame["loss_weights"].to_list() == expected
    assert [list(row[0]) for row in counted] == expected
    assert frame["input_ids"].to_list() == case.packed.input_ids[:, :-1].tolist()
