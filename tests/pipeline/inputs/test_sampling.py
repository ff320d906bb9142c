"""A sample depends on the documents alone, not on partitions, paths or batches, and has exactly the size asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.inputs import sampling
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.sampling import sample_of
from colophon.pipeline.recipe.schema import InputSection
from tests.pipeline.project import document, write_json_lines

NEEDS = (ColumnNeed("text", "text"), ColumnNeed("id", "id", required=False))
ROWS = [document(number) | {"id": f"id-{number}"} for number in range(600)]
BYTES_OF_A_FILE = 200 * 90


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three files of 200 documents: two of Parquet with small row groups, one of JSON lines."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        table = pa.Table.from_pylist(ROWS[number * 200 : (number + 1) * 200])
        pq.write_table(table, f"{number}.parquet", row_group_size=15, write_page_checksum=True)
    write_json_lines(Path("2.jsonl"), ROWS[400:])


def sampled(
    num_documents: int, *, paths: Sequence[str] = ("*.parquet", "2.jsonl"), partition_bytes: int = 64 << 20
) -> list[dict[str, Any]]:
    """The documents of a sample, sorted by id and text."""
    config = InputSection(paths=tuple(paths), partition_bytes=partition_bytes)
    sample = sample_of(plan_inputs(config, needs=NEEDS).partitions, NEEDS, num_documents=num_documents)
    found = [row for batch in sample.batches() for row in batch.to_pylist()]
    assert len(found) == len(sample)
    return sorted(found, key=lambda row: (row["id"], row["text"] or ""))


@pytest.mark.parametrize("sampled_bytes", [sampling.SAMPLED_BYTES, BYTES_OF_A_FILE, 1000, 1])
@pytest.mark.parametrize("num_documents", [1, 50, 599, 600, 9999])
def test_the_law_of_the_sample(monkeypatch: pytest.MonkeyPatch, sampled_bytes: int, num_documents: int) -> None:
    monkeypatch.setattr(sampling, "SAMPLED_BYTES", sampled_bytes)
    first = sampled(num_documents)
    assert len(first) == min(num_documents, len(ROWS))
    assert {row["id"] for row in first} <= {row["id"] for row in ROWS}
    assert len({row["id"] for row in first}) == len(first)
    for partition_bytes in (1, 3000, 9000):
        assert sampled(num_documents, partition_bytes=partition_bytes) == first
    assert sampled(num_documents, paths=["2.jsonl", "1.parquet", "0.parquet"]) == first


def test_a_small_input_has_the_same_sample_in_other_files() -> None:
    first = sampled(50)
    for path in Path().iterdir():
        path.unlink()
    pq.write_table(pa.Table.from_pylist(ROWS[::-1]), "all.parquet")
    assert sampled(50, paths=["all.parquet"]) == first


def test_documents_of_one_id_are_chosen_by_their_content_and_equal_ones_are_counted() -> None:
    rows = [{"text": f"text {number % 40}", "id": "same"} for number in range(100)]
    write_json_lines(Path("same.jsonl"), rows)
    first = sampled(30, paths=["same.jsonl"])
    assert len(first) == 30
    assert len({row["text"] for row in first}) > 5
    write_json_lines(Path("same.jsonl"), rows[::-1])
    assert sampled(30, paths=["same.jsonl"]) == first


def test_a_large_input_is_sampled_from_many_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SAMPLED_BYTES", BYTES_OF_A_FILE)
    numbers = {int(row["id"].removeprefix("id-")) for row in sampled(60)}
    assert len({number // 15 for number in numbers if number < 400}) > 8
    assert any(number >= 400 for number in numbers)


def test_a_row_group_that_cannot_be_read_is_not_sampled_for_any_partitions() -> None:
    path = Path("1.parquet")
    chunk = pq.read_metadata(path).row_group(3).column(0)
    data = bytearray(path.read_bytes())
    data[(chunk.dictionary_page_offset or chunk.data_page_offset) + 30] ^= 0x55
    path.write_bytes(bytes(data))
    first = sampled(9999)
    assert {int(row["id"].removeprefix("id-")) for row in first} == {*range(600)} - {*range(245, 260)}
    assert sampled(9999, partition_bytes=3000) == first
