"""`max_document_bytes` and the size of other values: one rule for all formats, in memory that the limit bounds."""

from __future__ import annotations

import csv
import json
import os
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columnar import parquet_pages, parquet_reader
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.limits import MAX_VALUE_BYTES
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.schema import InputSection
from tests.pipeline.inputs.test_readers import rows_of
from tests.pipeline.project import generated_id, line_places

LIMIT = 100
NEEDS = (ColumnNeed("text", "text"), ColumnNeed("id", "id", required=False), ColumnNeed("url", "url"))
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reader(name: str, needs: Sequence[ColumnNeed] = NEEDS, *, limit: int = LIMIT) -> PartitionReader:
    (partition,) = plan_inputs(InputSection(paths=[name], max_document_bytes=limit), needs=needs).partitions
    return PartitionReader(partition, needs, stage="test")


def write_jsonl(rows: Sequence[Row]) -> str:
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "a.jsonl"


def write_csv(rows: Sequence[Row]) -> str:
    with Path("a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return "a.csv"


def write_parquet(rows: Sequence[Row]) -> str:
    pq.write_table(pa.Table.from_pylist(list(rows)), "a.parquet", row_group_size=100)
    return "a.parquet"


def write_arrow(rows: Sequence[Row]) -> str:
    table = pa.Table.from_pylist(list(rows))
    table = table.set_column(0, "text", table["text"].dictionary_encode())
    with pa.ipc.new_file("a.arrow", table.schema) as writer:
        writer.write_table(table)
    return "a.arrow"


TEXTS = ["a", "x" * LIMIT, "x" * (LIMIT + 1), "é" * 50, "é" * 51, 'a "b"\n', "🙂" * 25, "🙂" * 26, "last"]
ROWS = [{"text": text, "id": f"i{n}", "url": f"https://e.org/{n}"} for n, text in enumerate(TEXTS)]
LARGE = [n for n, text in enumerate(TEXTS) if len(text.encode()) > LIMIT]


@pytest.mark.parametrize("write", [write_jsonl, write_csv])
@pytest.mark.parametrize("needs", [NEEDS, NEEDS[2:]])
def test_a_line_with_a_large_text_is_no_document(
    write: Callable[[Sequence[Row]], str], needs: Sequence[ColumnNeed]
) -> None:
    """It has no row, also in a pass that reads other columns, so that all outputs have the same rows."""
    found = reader(write(ROWS), needs)
    assert [row["url"] for row in rows_of(found)] == [row["url"] for n, row in enumerate(ROWS) if n not in LARGE]
    (entry,) = found.problems
    assert (entry.count, entry.rows) == (3, 3)
    assert entry.reason.startswith("a text of 101 bytes")


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_a_row_with_a_large_text_remains_with_a_null(write: Callable[[Sequence[Row]], str]) -> None:
    found = reader(write(ROWS))
    rows = rows_of(found)
    assert [row["text"] for row in rows] == [None if n in LARGE else text for n, text in enumerate(TEXTS)]
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    (entry,) = found.problems
    assert [example.line for example in entry.examples] == [n + 1 for n in LARGE]
    assert entry.reason == (
        "a text of 101 bytes (id 'i2'), more than max_document_bytes = 100. Raise input.max_document_bytes to read it"
    )


def test_the_limit_is_an_integer_of_bytes() -> None:
    for wrong in (0, -1, 1 << 31, 1.5):
        with pytest.raises(ValidationError):
            InputSection(paths=["a"], max_document_bytes=wrong)


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet, write_arrow])
def test_a_url_of_more_than_64_kib_is_null_and_counted(write: Callable[[Sequence[Row]], str]) -> None:
    urls = ["a", "b" * MAX_VALUE_BYTES, "b" * (MAX_VALUE_BYTES + 1), "c"]
    found = reader(write([{"text": "t", "id": url, "url": url} for url in urls]), limit=1 << 20)
    rows = rows_of(found)
    assert [row["url"] for row in rows] == [*urls[:2], None, "c"]
    assert [len(row["id"]) > 2 for row in rows] == [False, True, True, False]
    path = found.partition.url
    assert rows[2]["id"] == generated_id(path, line_places(path)[2] if path.endswith("jsonl") else 2)
    assert found.counts(["url"]) == {"url_too_long": 1}
    assert found.problems == []


def test_a_csv_row_that_is_too_long_is_skipped_in_little_memory() -> None:
    """Quoted line ends and quotes are in it; the rows around it are read, and so is a last one that never ends."""
    long = '"' + f'{"a" * 90} ""b"" c\r\n' * (1 << 16) + '"'
    content = f'text,id,url\r\na,1,u\r\n{long},2,u\r\n"b\r\nb",3,u\r\n{"c" * (5 << 20)},4,u\nd,5,u\n"e{"," * (4 << 20)}'
    Path("a.csv").write_text(content, newline="")
    found = reader("a.csv")
    tracemalloc.start()
    assert [(row["text"], row["id"]) for row in rows_of(found)] == [("a", "1"), ("b\r\nb", "3"), ("d", "5")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (entry,) = found.problems
    last = (1 << 16) + 6
    assert [example.line for example in entry.examples] == [3, last, last + 2]
    assert entry.reason.startswith(f"a row of lines 3 to {(1 << 16) + 3:,}, ")
    assert peak < 48 << 20


@pytest.mark.parametrize("header", ["text,id,url" + "," * 200_000, "text,id,url,c" + "c" * (4 << 20)])
def test_a_csv_header_that_is_too_long_is_an_error(header: str) -> None:
    Path("a.csv").write_text(header)
    (entry,) = plan_inputs(InputSection(paths=["a.csv", write_jsonl(ROWS)]), needs=NEEDS).quarantine
    assert "its header is too long" in entry.reason


BOMBS: dict[str, dict[str, Any]] = {
    "dictionary": {"dictionary_pagesize_limit": 8 << 20},
    "delta": {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    "dictionary, then plain": {"dictionary_pagesize_limit": 1},
    "pages of version 2": {"data_page_version": "2.0", "dictionary_pagesize_limit": 8 << 20},
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_parquet_file_is_decoded_few_rows_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 rows of 250 kB, which have a few kB in the file; limits as for a file 16 times as large."""
    monkeypatch.setattr(parquet_reader, "DECODED_BYTES", 4 << 20)
    table = pa.table({"text": ["x" * 250_000] * 400, "id": list(map(str, range(400)))})
    pq.write_table(table, "a.parquet", compression="zstd", data_page_size=1 << 16, **BOMBS[name])
    del table
    assert Path("a.parquet").stat().st_size < 100_000
    found = reader("a.parquet", NEEDS[:2], limit=1 << 20)
    before = pa.total_allocated_bytes()
    most = rows = 0
    for batch in found:
        rows += batch.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
    assert (rows, found.problems) == (400, [])
    assert most < 24 << 20


@pytest.mark.parametrize("num_rows", [1, 1000])
@pytest.mark.parametrize("is_dictionary", [True, False])
def test_a_parquet_page_that_unpacks_to_far_more_is_refused_before_it_is_unpacked(
    num_rows: int, is_dictionary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_pages, "_PAGE_BYTES", 1 << 20)
    texts = ["x" * (8_000_000 // num_rows) + f"{n:04d}" for n in range(num_rows)]
    table = pa.table({"text": texts, "id": list(map(str, range(num_rows)))})
    settings = {"use_dictionary": is_dictionary, "dictionary_pagesize_limit": 1 << 30}
    pq.write_table(table, "a.parquet", compression="zstd", **settings)
    del table, texts
    before, peak = pa.total_allocated_bytes(), pa.default_memory_pool().max_memory()
    with pytest.raises(InputError, match=r"column 'text': a page of [0-9,]+ values that unpacks from .* 1,000,000\. "):
        list(reader("a.parquet", NEEDS[:2], limit=1_000_000))
    assert pa.total_allocated_bytes() - before < 1 << 20
    assert pa.default_memory_pool().max_memory() == peak


def test_a_large_parquet_page_of_many_documents_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of 8 MB that is not compressed much, with documents of 8 kB, is as large as a writer makes it."""
    monkeypatch.setattr(parquet_pages, "_PAGE_BYTES", 1 << 20)
    texts = [os.urandom(4000).hex() for _ in range(1000)]
    settings: dict[str, Any] = {"use_dictionary": False, "data_page_size": 1 << 30}
    pq.write_table(pa.table({"text": texts, "id": texts}), "a.parquet", compression="zstd", **settings)
    assert [row["text"] for row in rows_of(reader("a.parquet", NEEDS[:2], limit=10_000))] == texts


def test_a_page_header_may_have_long_statistics() -> None:
    texts = ["x" * 3000 + str(n) for n in range(50)]
    table = pa.table({"text": texts, "id": texts})
    pq.write_table(table, "a.parquet", use_dictionary=False, data_page_size=1, write_page_checksum=True)
    footer = pq.read_metadata("a.parquet")
    with Path("a.parquet").open("rb") as file:
        found = list(parquet_pages.pages(file, footer.row_group(0).column(0)))
    assert sum(page.num_values for page in found) == 50
    assert [row["text"] for row in rows_of(reader("a.parquet", NEEDS[:2], limit=10_000))] == texts
