"""Arrow IPC files and streams: every batch, or an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from colophon.pipeline.errors import InputError
from tests.pipeline.inputs.reading import read, refusal, write
from tests.pipeline.project import SCHEMA, document

ROWS = [{**document(number), "id": f"id-{number}"} for number in range(60)]
TABLE = pa.Table.from_pylist(ROWS, SCHEMA)
EXPECTED = [{name: row[name] for name in ("text", "id", "url")} for row in ROWS]
MARK = b"\xff\xff\xff\xff\0\0\0\0"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stream(*tables: pa.Table, legacy: bool = False) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(use_legacy_format=legacy)
    with pa.ipc.new_stream(sink, tables[0].schema, options=options) as writer:
        for table in tables:
            writer.write_table(table, max_chunksize=7)
    return bytes(sink.getvalue())


def reason(data: bytes) -> str:
    Path("a.arrow").write_bytes(data)
    with pytest.raises(InputError) as error:
        read("a.arrow")
    return str(error.value)


def test_files_and_streams_are_read_in_order() -> None:
    with pa.ipc.new_file("a.arrow", SCHEMA) as writer:
        writer.write_table(TABLE, max_chunksize=7)
    assert read("a.arrow") == EXPECTED
    for legacy in (False, True):
        Path("a.arrow").write_bytes(stream(TABLE, legacy=legacy))
        assert read("a.arrow") == EXPECTED


def test_what_hugging_face_datasets_saves_is_read() -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk("saved", num_shards=2)
    paths = sorted(str(path) for path in Path("saved").glob("*.arrow"))
    assert len(paths) == 2
    assert [row for path in paths for row in read(path)] == EXPECTED


def test_dictionaries_of_other_columns_do_not_disturb() -> None:
    words = pa.array(["x", "y", "z"] * 20).dictionary_encode()
    table = TABLE.append_column("w", words).append_column("url2", words).add_column(0, "v", words)
    assert read(write(table.set_column(1, "text", words), "stream.arrow"))[:2] == [
        {**EXPECTED[0], "text": "x"},
        {**EXPECTED[1], "text": "y"},
    ]


def test_a_file_without_rows() -> None:
    assert read(write(TABLE.slice(0, 0), "a.arrow")) == []
    assert read(write(TABLE.slice(0, 0), "stream.arrow")) == []


def test_a_stream_that_is_cut_after_a_batch_is_an_error() -> None:
    """Arrow takes it for a complete one."""
    whole = stream(TABLE)
    assert whole.endswith(MARK)
    assert "ends without its end mark" in reason(whole.removesuffix(MARK))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.99])
def test_a_stream_that_is_cut_anywhere_is_an_error(share: float) -> None:
    whole = stream(TABLE)
    assert reason(whole[: int(len(whole) * share)])


def test_a_second_stream_in_the_same_file_is_an_error() -> None:
    whole = stream(TABLE)
    assert reason(whole + whole) == f"there is more data after the end of the Arrow stream, at byte {len(whole)}"


@pytest.mark.parametrize("data", [b"", b"nonsense", b"ARROW1", b"ARROW1\0\0nonsense", b"FEA1" + bytes(40), bytes(64)])
def test_a_file_of_another_kind_is_found_when_the_run_is_planned(data: bytes) -> None:
    Path("a.arrow").write_bytes(data)
    assert refusal("a.arrow").startswith("neither an Arrow IPC file nor a stream")


def invalid(kind: pa.DataType, *, rows: int = 60) -> pa.Array:
    """A column of strings whose bytes are not UTF-8."""
    buffers = pa.array([b"caf\xe9"] * rows, pa.binary()).buffers()
    return pa.Array.from_buffers(kind, rows, buffers)


def test_text_that_is_not_utf8_is_repaired_as_in_parquet() -> None:
    text = invalid(pa.string())
    for column in (text, pa.DictionaryArray.from_arrays(pa.array([0] * 60), text.slice(0, 1))):
        table = TABLE.set_column(0, "text", column)
        for name in ("a.arrow", "stream.arrow"):
            assert read(write(table, name))[0]["text"] == "caf\ufffd"


def test_offsets_are_checked_where_text_is_not_utf8() -> None:
    text = invalid(pa.string())
    offsets = np.arange(0, 61 * 4, 4, dtype=np.int32)
    offsets[5] = 2**31 - 1
    broken = pa.Array.from_buffers(pa.string(), 60, [None, pa.py_buffer(offsets), text.buffers()[2]])
    with pytest.raises(InputError, match="Invalid"):
        read(
            write(TABLE.set_column(0, "text", text).set_column(SCHEMA.get_field_index("url"), "url", broken), "a.arrow")
        )
