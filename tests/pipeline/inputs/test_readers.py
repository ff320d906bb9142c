"""Reading partitions: rows keep their order and number, and every line that is not a document is reported."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columns import BATCH_ROWS, ColumnNeed
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.schema import InputSection
from tests.pipeline.project import document, generated_id, line_places, write_json_lines

NEEDS = (ColumnNeed("text", "text"), ColumnNeed("id", "id", required=False))
ROWS = [{**document(number), "id": f"id-{number}"} for number in range(60)]
TEXTS = [row["text"] for row in ROWS]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def partitions(path: str, *, needs: Sequence[ColumnNeed] = NEEDS, **settings: Any) -> tuple[Partition, ...]:
    return plan_inputs(InputSection(paths=[path], **settings), needs=needs).partitions


def reader(path: str, *, needs: Sequence[ColumnNeed] = NEEDS, **settings: Any) -> PartitionReader:
    (partition,) = partitions(path, needs=needs, **settings)
    return PartitionReader(partition, needs, stage="test")


def rows_of(reader: PartitionReader) -> list[dict[str, Any]]:
    return [row for batch in reader for row in batch.to_pylist()]


def texts_of(reader: PartitionReader) -> list[str | None]:
    return [row["text"] for row in rows_of(reader)]


def reason_of(reader: PartitionReader) -> str:
    with pytest.raises(InputError) as error:
        rows_of(reader)
    assert "\n" not in str(error.value)
    return str(error.value)


# Parquet


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_texts_of_every_string_type_are_read(kind: pa.DataType) -> None:
    pq.write_table(pa.table({"text": pa.array(TEXTS, kind)}), "a.parquet", row_group_size=7)
    found = reader("a.parquet")
    assert texts_of(found) == TEXTS
    assert found.texts_null == TEXTS.count(None) > 0
    assert found.problems == []


def test_batches_are_bounded_and_in_order() -> None:
    texts = [str(number) for number in range(2 * BATCH_ROWS + 5)]
    pq.write_table(pa.table({"text": texts}), "a.parquet")
    batches = list(reader("a.parquet"))
    assert max(batch.num_rows for batch in batches) <= BATCH_ROWS
    assert [text for batch in batches for text in batch.column("text").to_pylist()] == texts
    assert all(batch.schema.names == ["text", "id"] for batch in batches)


def test_columns_have_their_fineweb_names_in_the_order_of_the_needs() -> None:
    pq.write_table(pa.table({"key": [7, None], "url": ["u", None], "content": ["a", "b"]}), "a.parquet")
    needs = (
        ColumnNeed("text", "content"),
        ColumnNeed("id", "key", required=False),
        ColumnNeed("url", "url"),
        ColumnNeed("score", "score", required=False),
    )
    (batch,) = reader("a.parquet", needs=needs)
    assert batch.schema.names == ["text", "id", "url", "score"]
    assert batch.column("id").to_pylist() == ["7", generated_id("a.parquet", 1)]
    assert batch.column("score").type == pa.float64()
    assert batch.column("score").null_count == 2


def test_generated_ids_are_the_row_of_the_file_in_any_partition() -> None:
    pq.write_table(pa.table({"text": [str(number) for number in range(10)]}), "a.parquet", row_group_size=3)
    parts = partitions("a.parquet", partition_bytes=1)
    assert len(parts) == 4
    rows = [row for part in parts for row in rows_of(PartitionReader(part, NEEDS, stage="test"))]
    assert rows == [{"text": str(number), "id": generated_id("a.parquet", number)} for number in range(10)]


def test_bytes_that_are_not_utf8_are_replaced_and_counted() -> None:
    values = [b"good", b"bad \xff\xfe", None, b"cesu \xed\xa0\xbd", "größe".encode()]
    array = pa.array(values, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": array, "url": array}), "a.parquet")
    found = reader("a.parquet", needs=(*NEEDS, ColumnNeed("url", "url")))
    rows = rows_of(found)
    assert [row["text"] for row in rows] == ["good", "bad ��", None, "cesu ���", "größe"]
    assert [row["url"] for row in rows] == [row["text"] for row in rows]
    assert (found.texts_repaired, found.texts_null) == (2, 1)


def damaged(path: str, *, at: float) -> str:
    """The file with some bytes overwritten in the middle of its pages."""
    data = bytearray(Path(path).read_bytes())
    place = int(len(data) * at)
    data[place : place + 8] = bytes(byte ^ 0x55 for byte in data[place : place + 8])
    Path(path).write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("at", [0.2, 0.5, 0.7])
def test_a_damaged_page_is_found_by_its_checksum(at: float) -> None:
    # Without compression only the checksum shows the damage.
    table = pa.table({"text": [f"{number:06}" * 50 for number in range(400)]})
    pq.write_table(table, "a.parquet", compression="none", write_page_checksum=True, use_dictionary=False)
    assert "CRC" in reason_of(reader(damaged("a.parquet", at=at)))


def test_a_file_that_lost_its_pages_after_planning_is_an_input_error() -> None:
    pq.write_table(pa.table({"text": ["a" * 1000] * 50}), "a.parquet", compression="none", use_dictionary=False)
    found = reader("a.parquet")
    data = Path("a.parquet").read_bytes()
    Path("a.parquet").write_bytes(data[: len(data) // 2])
    assert reason_of(found)
    Path("a.parquet").unlink()
    assert "a.parquet" in reason_of(found)


def test_a_file_that_lost_a_column_after_planning_is_an_input_error() -> None:
    pq.write_table(pa.table({"text": ["a"]}), "a.parquet")
    found = reader("a.parquet")
    pq.write_table(pa.table({"txt": ["a"]}), "a.parquet")
    assert reason_of(found) == "no column 'text'; columns: txt"


def test_a_file_that_lost_rows_after_planning_is_an_input_error() -> None:
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), "a.parquet")
    found = reader("a.parquet")
    pq.write_table(pa.table({"text": ["a"]}), "a.parquet")
    assert reason_of(found) == "1 rows read, the footer lists 3"


# JSON lines


def compressed(path: str, compress: Callable[[bytes], bytes], suffix: str) -> str:
    data = compress(Path(path).read_bytes())
    Path(path + suffix).write_bytes(data)
    return path + suffix


def in_two_frames(data: bytes) -> bytes:
    """Compress in two frames, as `pzstd` and the concatenation of two files do."""
    middle = len(data) // 2
    return zstandard.compress(data[:middle]) + zstandard.compress(data[middle:])


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        ("", bytes),
        (".gz", gzip.compress),
        (".gz", lambda data: gzip.compress(data[:999]) + gzip.compress(data[999:])),
        (".zst", zstandard.compress),
        (".zst", in_two_frames),
    ],
    ids=["plain", "gz", "gz in two members", "zst", "zst in two frames"],
)
def test_json_lines_are_read_plain_and_compressed(suffix: str, compress: Callable[[bytes], bytes]) -> None:
    write_json_lines(Path("a.jsonl"), ROWS)
    found = reader(compressed("a.jsonl", compress, suffix))
    assert rows_of(found) == [{"text": row["text"], "id": row["id"]} for row in ROWS]
    assert found.problems == []
    assert found.texts_null == TEXTS.count(None)


@pytest.mark.parametrize(
    ("suffix", "compress", "reason"),
    [
        (".gz", gzip.compress, "Compressed file ended before the end-of-stream marker was reached"),
        (".zst", zstandard.compress, "Truncated compressed stream"),
        (".zst", in_two_frames, "Truncated compressed stream"),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_an_error_never_a_short_read(
    suffix: str, compress: Callable[[bytes], bytes], reason: str, share: float
) -> None:
    write_json_lines(Path("a.jsonl"), ROWS)
    path = Path(compressed("a.jsonl", compress, suffix))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert reason_of(reader(str(path))) == reason


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_not_compressed_as_its_suffix_says_is_an_error(suffix: str) -> None:
    write_json_lines(Path(f"a.jsonl{suffix}"), ROWS)
    assert reason_of(reader(f"a.jsonl{suffix}"))


@pytest.mark.parametrize("sizes", [(0,), (5, 0, 70000), (1 << 21, 3)])
def test_zstd_frames_of_all_sizes_are_joined(sizes: tuple[int, ...], tmp_path: Path) -> None:
    blocks = [bytes([65 + i]) * size for i, size in enumerate(sizes)]
    path = tmp_path / "a.zst"
    path.write_bytes(b"".join(zstandard.compress(block) for block in blocks))
    with fsspec.open(str(path), "rb", compression="infer") as file:
        assert file.read() == b"".join(blocks)


BAD_LINES = {
    '{"text": "cut': "unexpected end of data",
    "null": "a JSON NoneType, not an object",
    "[1]": "a JSON list, not an object",
    '{"txt": "a"}': "no key 'text'; keys: txt",
    '{"text": 7}': "'text' is int, not a string",
    r'{"text": "\ud800"}': "surrogate",
    "nonsense": "invalid literal",
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.items())
def test_a_bad_line_is_reported_and_the_others_are_read(line: str, reason: str) -> None:
    Path("a.jsonl").write_text(f'{{"text": "first"}}\n{line}\n{{"text": null}}\n{{"text": "last"}}')
    found = reader("a.jsonl")
    places = line_places("a.jsonl")
    assert rows_of(found) == [
        {"text": text, "id": generated_id("a.jsonl", places[number])}
        for number, text in ((0, "first"), (2, None), (3, "last"))
    ]
    (problem,) = found.problems
    assert (problem.source, problem.line, problem.rows, problem.stage) == ("a.jsonl", 2, 1, "test")
    assert reason in problem.reason


def test_bytes_that_are_not_utf8_make_a_line_bad() -> None:
    Path("a.jsonl").write_bytes(b'{"text": "\xff"}\n{"text": "ok"}\n')
    found = reader("a.jsonl")
    assert texts_of(found) == ["ok"]
    assert [problem.line for problem in found.problems] == [1]


def test_lines_are_the_same_documents_for_any_columns() -> None:
    Path("a.jsonl").write_text('{"text": "a", "url": "u"}\n{"url": "v"}\n{"text": "c"}\n')
    urls = (ColumnNeed("url", "url"),)
    found = reader("a.jsonl", needs=urls)
    assert rows_of(found) == [{"url": "u"}, {"url": None}]
    assert [problem.line for problem in found.problems] == [2]


def test_json_values_of_other_types_become_text_and_numbers_or_null() -> None:
    write_json_lines(
        Path("a.jsonl"), [{"text": "a", "id": 7, "score": "4.5", "int_score": "x"}, {"text": "b", "score": [1]}]
    )
    needs = (*NEEDS, ColumnNeed("score", "score"), ColumnNeed("int_score", "int_score", required=False))
    assert rows_of(reader("a.jsonl", needs=needs)) == [
        {"text": "a", "id": "7", "score": 4.5, "int_score": None},
        {"text": "b", "id": generated_id("a.jsonl", line_places("a.jsonl")[1]), "score": None, "int_score": None},
    ]


def test_json_columns_are_mapped() -> None:
    write_json_lines(Path("a.jsonl"), [{"content": "a"}, {"text": "b"}])
    found = reader("a.jsonl", needs=(ColumnNeed("text", "content"),), columns={"text": "content"})
    assert texts_of(found) == ["a"]
    assert [problem.reason for problem in found.problems] == ["no key 'content'; keys: text"]


LINES = st.one_of(
    st.fixed_dictionaries(
        {"text": st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))}
    ).map(json.dumps),
    st.sampled_from(["", "   ", "\t\r", *sorted(BAD_LINES)]),
)


@given(lines=st.lists(LINES, max_size=30))
def test_every_line_is_a_document_or_reported(lines: list[str]) -> None:
    lines = ['{"text": "first"}', *lines]
    Path("p.jsonl").write_text("".join(f"{line}\n" for line in lines))
    found = reader("p.jsonl")
    texts = texts_of(found)
    bad = [number for number, line in enumerate(lines, start=1) if line in BAD_LINES]
    examples = [example.line for problem in found.problems for example in problem.examples]
    assert {*examples, *(problem.line for problem in found.problems)} <= set(bad)
    assert texts == [json.loads(line)["text"] for line in lines if line.strip() and line not in BAD_LINES]
    blank = sum(not line.strip() for line in lines)
    assert len(texts) + sum(problem.count for problem in found.problems) + blank == len(lines)


# Other formats


def test_a_file_that_is_no_warc_is_an_input_error() -> None:
    Path("a.warc").write_bytes(b"nonsense")
    assert reason_of(reader("a.warc")).startswith("record 1 at byte 0: expected WARC/1.0, found b'nonsense'")


# The network


def test_a_connection_error_is_not_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    write_json_lines(Path("a.jsonl"), ROWS)
    found = reader("a.jsonl")

    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(LocalFileSystem, "open", unreachable)
    with pytest.raises(ConnectionResetError):
        rows_of(found)
