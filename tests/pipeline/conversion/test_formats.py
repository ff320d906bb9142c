"""Every format has the rows of the layout: ids, loss weights and segments, read by code that shares nothing with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colophon.pipeline.conversion import rows
from colophon.pipeline.conversion.conversion import FORMATS, Conversion
from colophon.pipeline.errors import UsageError
from colophon.shards.common.digests import file_sha256
from colophon.shards.reader import PackedDataset
from colophon.shards.schema import NO_DOCUMENT
from tests.pipeline.conversion.read import READERS
from tests.trainer.runs import LAYOUTS

BOOLEAN = ("npy", "nanotron")
FILE_BYTES = 700  # several files and, below, several blocks in each


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_BLOCK_IDS", 160)


def segment_ends(dataset: PackedDataset, *, width: int, with_padding: bool) -> list[list[int]]:
    """The ends of the segments in the first `width` tokens of each row."""
    packed = dataset.rows(range(len(dataset)))
    found = []
    for segments, documents in zip(packed.segments[:, :width], packed.documents, strict=True):
        ends = [*(np.flatnonzero(np.diff(segments)) + 1).tolist(), width]
        found.append([end for end in ends if with_padding or documents[end - 1] != NO_DOCUMENT])
    return found


def assert_equal(directory: Path, to: str, dataset: PackedDataset, weights: Any) -> None:
    width = dataset.sequence_length + 1
    read = READERS[to](directory, width)
    packed = dataset.rows(range(len(dataset)))
    expected_ids = packed.input_ids
    if to == "parquet":  # it has the last token of a row as a label alone
        expected_ids = np.where(weights[:, -1:] > 0, packed.input_ids[:, -1:].astype(int), -100)
        expected_ids = np.concatenate([packed.input_ids[:, :-1], expected_ids], axis=1)
    assert np.array_equal(read.input_ids, expected_ids)
    assert np.array_equal(read.weights, weights)
    inputs_only = to in ("mds", "parquet")
    assert read.ends == segment_ends(dataset, width=width - inputs_only, with_padding=to != "npy")


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_weights_and_segments_are_those_of_the_layout(packed: Path, layout: str, to: str, tmp_path: Path) -> None:
    dataset = PackedDataset.open(packed, layout)
    binarize = to in BOOLEAN and layout == "append"
    conversion = Conversion(packed, layout=layout, to=to, binarize=binarize)
    written = conversion.write(tmp_path / "converted", file_bytes=FILE_BYTES)
    weights = dataset.rows(range(len(dataset))).loss_weights(dataset.role_weights)
    assert_equal(tmp_path / "converted", to, dataset, weights > 0 if binarize else weights)
    assert (written.rows, written.is_binarized) == (len(dataset), binarize)
    assert not binarize or any("the rows as written have none" in lack for lack in written.lacks)
    assert len(written.files) > 5
    for file in written.files:
        path = tmp_path / "converted" / file.path
        assert (path.stat().st_size, file_sha256(path)) == (file.bytes, file.sha256)


@pytest.mark.parametrize("to", FORMATS)
def test_ids_of_32_bits(packed_in_32_bits: Path, to: str, tmp_path: Path) -> None:
    dataset = PackedDataset.open(packed_in_32_bits, "prepend")
    assert dataset.id_dtype == np.uint32
    Conversion(packed_in_32_bits, layout="prepend", to=to).write(tmp_path / "converted")
    weights = dataset.rows(range(len(dataset))).loss_weights(dataset.role_weights)
    assert_equal(tmp_path / "converted", to, dataset, weights)


@pytest.mark.parametrize("to", BOOLEAN)
def test_a_format_of_booleans_refuses_other_weights(packed: Path, to: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\(metadata 0.5\).*--binarize .*; megatron, mds, parquet hold the weights"):
        Conversion(packed, layout="append", to=to)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["megatron", "mds", "parquet"])
def test_weights_are_binarized_on_request(packed: Path, to: str, tmp_path: Path) -> None:
    Conversion(packed, layout="append", to=to, binarize=True).write(tmp_path / "converted")
    dataset = PackedDataset.open(packed, "append")
    weights = dataset.rows(range(len(dataset))).loss_weights(dataset.role_weights)
    assert set(np.unique(weights)) == {0.0, 0.5, 1.0}
    assert_equal(tmp_path / "converted", to, dataset, weights > 0)


@pytest.mark.parametrize("to", FORMATS)
def test_two_conversions_have_the_same_bytes(packed: Path, to: str, tmp_path: Path) -> None:
    first, second = (Conversion(packed, layout="prepend", to=to).write(tmp_path / name) for name in ("first", "second"))
    assert first == second


def test_documents_and_partitions_lead_back_to_the_input(packed: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    Conversion(packed, layout="plain", to="parquet").write(tmp_path / "converted")
    table = pq.read_table(tmp_path / "converted" / "data")
    dataset = PackedDataset.open(packed, "plain")
    expected = dataset.rows(range(len(dataset))).documents[:, :-1]
    for row, documents in enumerate(table.column("documents").to_pylist()):
        changes = np.flatnonzero(np.diff(expected[row], prepend=-1) != 0)
        assert documents == expected[row][changes].tolist()
    assert table.column("partition").to_pylist() == [
        str(dataset.locate(row)[0].path.stem) for row in range(len(dataset))
    ]
