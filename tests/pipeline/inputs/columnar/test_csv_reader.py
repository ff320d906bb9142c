"""CSV: every row with its fields as they are, or an error that names the line."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columns import ColumnNeed
from tests.pipeline.inputs.reading import planned, read, refusal
from tests.pipeline.project import SCHEMA, document

ROWS = [{**document(number), "id": f"id-{number}"} for number in range(60)]
TEXT = (ColumnNeed("text", "text"),)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def csv_of(rows: Sequence[dict[str, Any]], names: Sequence[str] = SCHEMA.names) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def test_rows_without_text_and_line_ends_in_fields_are_kept() -> None:
    Path("a.csv").write_bytes(csv_of(ROWS))
    found = read("a.csv", needs=(*TEXT, ColumnNeed("id", "id"), ColumnNeed("score", "score")))
    assert found == [{"text": row["text"] or "", "id": row["id"], "score": row["score"]} for row in ROWS]
    assert any("\r\n" in row["text"] and "\0" in row["text"] for row in found)
    assert any(row["text"] == "" for row in found)


def test_texts_of_any_length_and_compressed() -> None:
    data = csv_of([{"text": "x\n" * 3_000_000, "id": "1"}, {"text": "y", "id": "2"}])
    half = len(data) // 2
    files = {
        "a.csv": data,
        "a.csv.gz": gzip.compress(data),
        "a.csv.zst": zstandard.compress(data[:half]) + zstandard.compress(data[half:]),
    }
    for name, content in files.items():
        Path(name).write_bytes(content)
        assert [len(row["text"]) for row in read(name)] == [6_000_000, 1]


def test_a_byte_order_mark_is_passed_over() -> None:
    for header in ("text,id,url", '"text",id,url'):
        Path("a.csv").write_text(f"\ufeff{header}\na,1,u\n", encoding="utf-8")
        assert read("a.csv") == [{"text": "a", "id": "1", "url": "u"}]


def test_columns_that_nobody_needs_do_no_harm() -> None:
    Path("a.csv").write_text("x,,text,x,\n1,2,a,3,4\n")
    assert read("a.csv", needs=TEXT) == [{"text": "a"}]


def test_rows_are_counted_without_any_column() -> None:
    Path("a.csv").write_text("x,y\n1,2\n\n3,4\n")
    assert read("a.csv", needs=(ColumnNeed("score", "score", required=False),)) == [{"score": None}] * 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"txt,id\na,1\n", "no column 'text'; columns: txt, id"),
        (b"text;id\na;1\n", "no column 'text'; columns: text;id"),
        (b"text,text\na,b\n", "two columns 'text'"),
        (b"\xef\xbb\xbftext,\xef\xbb\xbftext\na,b\n", "two columns 'text'"),
        (b"", "no header: the first line names no column"),
        (b"\n\ntext\n", "no header: the first line names no column"),
        (b"text\n\xff\n", "not UTF-8: the byte 0xff. Convert it"),
        ("text,id\na,1\n".encode("utf-16"), "UTF-16, not UTF-8. Convert it: iconv"),
        (b"x" * (5 << 20), "its header is too long: more than 4 MiB"),
    ],
)
def test_a_header_that_does_not_fit_is_found_when_the_run_is_planned(data: bytes, reason: str) -> None:
    Path("a.csv").write_bytes(data)
    assert refusal("a.csv", needs=TEXT).startswith(reason)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'text,id\na,1\n"b,2\nc",3,4\n', "line 4: 3 fields, the header names 2"),
        (b"text,id\na,1\nb\n", "line 3: 1 fields, the header names 2"),
        (b'text\n"a\nb\n', "Error: unexpected end of data"),
        (b'text\n"a"b\n', "Error: ',' expected after '\"'"),
        (b"text\n" + b"a\n" * (3 << 20) + b"\xff\n", "not UTF-8: the byte 0xff. Convert it"),
    ],
)
def test_rows_that_do_not_fit_are_errors(data: bytes, reason: str) -> None:
    Path("a.csv").write_bytes(data)
    with pytest.raises(InputError) as error:
        read("a.csv", needs=TEXT)
    assert str(error.value).startswith(reason)


def test_a_truncated_file_is_an_error() -> None:
    Path("a.csv.gz").write_bytes(gzip.compress(csv_of(ROWS))[:-20])
    with pytest.raises(InputError, match="ended before the end-of-stream marker"):
        read("a.csv.gz", needs=TEXT)


def test_only_a_file_that_fits_is_planned() -> None:
    Path("a.csv").write_text("text\na\n")
    Path("b.csv").write_text("other\na\n")
    inputs = planned("a.csv", "b.csv", needs=TEXT)
    assert [partition.source for partition in inputs.partitions] == ["a.csv"]
    assert [entry.source for entry in inputs.quarantine] == ["b.csv"]


fields = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(['"', ",", "\r", "\n", ""])


@given(st.lists(st.tuples(fields, fields, fields), max_size=6))
def test_what_the_csv_module_writes_is_read(rows: list[tuple[str, str, str]]) -> None:
    names = ("text", "id", "url")
    Path("a.csv").write_bytes(csv_of([dict(zip(names, row, strict=True)) for row in rows], names))
    assert [tuple(row.values()) for row in read("a.csv")] == rows
