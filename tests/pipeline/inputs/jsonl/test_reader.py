"""Whole JSONL files: encodings, line ends, blank lines, and files that are JSON but not lines."""

from __future__ import annotations

import codecs
import json
import tracemalloc
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.jsonl import documents
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.readers import PartitionReader
from tests.pipeline.inputs.test_readers import reason_of, rows_of, texts_of

NEEDS = (ColumnNeed("text", "text"), ColumnNeed("id", "id", required=False))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reader(content: bytes, **settings: int) -> PartitionReader:
    """A reader of a file with this content, which no plan has seen."""
    Path("a.jsonl").write_bytes(content)
    url = str(Path("a.jsonl").absolute())
    partition = Partition(
        name="a",
        source="a.jsonl",
        url=url,
        format="jsonl",
        row_groups=None,
        first_row=0,
        rows=None,
        bytes=1,
        identity="",
        **settings,
    )
    return PartitionReader(partition, NEEDS, stage="test")


@pytest.fixture(autouse=True)
def unchanged() -> object:
    with mock.patch("colophon.pipeline.inputs.readers.present_identity", lambda partition: partition.identity):
        yield


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b"\r\n \t\r\n"])
def test_marks_line_ends_and_blank_lines_are_no_documents(mark: bytes, end: bytes) -> None:
    found = reader(mark + end.join([b'{"text": "a"}', b'{"text": "b"}', b'{"text": "c"}']))
    assert texts_of(found) == ["a", "b", "c"]
    assert found.problems == []
    assert texts_of(reader(mark + end * 5)) == []


def test_files_with_byte_order_marks_may_be_joined() -> None:
    part = codecs.BOM_UTF8 + b'{"text": "a"}\n'
    assert texts_of(reader(part * 3)) == ["a"] * 3


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_unicode_encodings_are_named(encoding: str) -> None:
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    expected = f"{name}, not UTF-8. Convert it: iconv -f {name} -t UTF-8"
    assert reason_of(reader('{"text": "größe"}\n'.encode(encoding))) == expected


ROWS = [{"text": "a", "url": "u"}, {"text": "b", "tags": [1]}]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (json.dumps(ROWS, indent=1), "one JSON array"),
        (json.dumps(ROWS, separators=(",\n", ":")), "one JSON array"),
        ("[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n", "one JSON array"),
        ("\n\n" + json.dumps(ROWS[1], indent=2), "a JSON object over several lines"),
        ("\n".join(json.dumps(row, indent=2) for row in ROWS), "a JSON object over several lines"),
        ("\ufeff" + json.dumps(ROWS[1], indent=2), "a JSON object over several lines"),
    ],
)
def test_json_over_several_lines_is_named_as_what_it_is(content: str, reason: str) -> None:
    found = reader(content.encode())
    assert reason_of(found).startswith(f"{reason}, not ")
    assert found.excluded.count <= 2


def test_one_odd_first_line_does_not_make_a_file_an_array() -> None:
    found = reader(b'[1,\n{"text": "a"}\n')
    assert texts_of(found) == ["a"]
    assert [(entry.line, entry.count) for entry in found.problems] == [(1, 1)]


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_above_the_limit_is_named_and_the_next_is_read(end: bytes) -> None:
    long = b'{"text": "' + b"x" * (5 << 20) + b'"}'
    found = reader(b'{"text": "a"}\n' + long + b'\n{"text": "b"}\n' + long + end, max_document_bytes=1000)
    assert texts_of(found) == ["a", "b"]
    (entry,) = found.problems
    assert (entry.line, entry.count, entry.examples[1].line) == (2, 2, 4)
    assert entry.reason == (
        "a line of 5,242,892 bytes, too large for max_document_bytes = 1,000. Raise input.max_document_bytes to read it"
    )


def test_a_text_above_the_limit_is_named_with_its_id_and_size() -> None:
    """The size is that of the text's UTF-8, not of the line: escapes and other keys do not count."""
    texts = ["x" * 100, "x" * 101, "é" * 50, "é" * 51, "\n" * 100, "x" * 100_000]
    rows = [{"id": n, "text": text, "other": "y" * 500} for n, text in enumerate(texts)]
    found = reader("".join(json.dumps(row) + "\n" for row in rows).encode(), max_document_bytes=100)
    assert texts_of(found) == [text for text in texts if len(text.encode()) <= 100]
    (entry,) = found.problems
    assert (entry.line, entry.count, [example.line for example in entry.examples]) == (2, 3, [2, 4, 6])
    assert entry.reason == (
        "a text of 101 bytes (id '1'), more than max_document_bytes = 100. Raise input.max_document_bytes to read it"
    )


def test_long_lines_have_the_values_of_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": n, "text": text, "o": [[], {}, 1e5]} for n, text in enumerate(["größe", "a\nb", None, "🙂", ""])]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode() + b' \t\n{"id": 0.10, "text": "t"}\n'
    expected = rows_of(reader(content))
    monkeypatch.setattr(documents, "_SCANNED_BYTES", 0)
    assert rows_of(reader(content)) == expected
    assert [row["id"] for row in expected] == ["0", "1", "2", "3", "4", "0.10"]


def test_a_long_line_of_other_values_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """orjson would build 30 bytes of objects for each of these."""
    monkeypatch.setattr(documents, "_SCANNED_BYTES", 1 << 16)
    line = b'{"text": "a", "other": [' + b"[]," * (1 << 15) + b"[]]}"
    parse = documents.LineParser("text", NEEDS)
    tracemalloc.start()
    assert parse(line) == (["a", None], 2**31 - 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(line)


def test_ids_beyond_64_bits_stay_different() -> None:
    ids = [2**64 + n for n in range(4)]
    found = reader("".join(json.dumps({"text": "t", "id": number}) + "\n" for number in ids).encode())
    assert [row["id"] for row in rows_of(found)] == [str(number) for number in ids]


GOOD = [json.dumps({"text": "größe", "id": n, "other": [n, {"text": 1}]}) for n in range(3)]
PIECES = st.one_of(st.sampled_from([*GOOD, "", " ", "{", "[", "}", "NaN", "\ufeff", "\0"]).map(str.encode), st.binary())


@given(st.lists(PIECES, max_size=8), st.sampled_from([b"\n", b"\r\n", b""]))
def test_any_bytes_are_rows_reports_or_one_error(pieces: list[bytes], end: bytes) -> None:
    content = end.join(pieces)
    found = reader(content)
    try:
        num_rows = len(rows_of(found))
    except InputError as error:
        assert "\n" not in str(error)
        return
    reported = sum(entry.count for entry in found.problems)
    not_blank = [line for line in content.split(b"\n") if line.removeprefix(codecs.BOM_UTF8).strip()]
    assert num_rows + reported == len(not_blank)
