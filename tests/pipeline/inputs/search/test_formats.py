"""The meaning of file names: formats, compressions, and names that are not data."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pytest
import zstandard

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.inputs.search.formats import (
    Meaning,
    compression_of,
    delimiter_of,
    format_of,
    meaning_of,
    stem_of,
)
from colophon.pipeline.recipe.schema import InputSection

ROWS = [{"id": "1", "text": "a, b"}, {"id": "2", "text": "größe"}]
_TEXT = "text file (format = 'text' reads it)"
_LINES = {
    "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "csv": 'id,text\n1,"a, b"\n2,größe\n'.encode(),
    "tsv": "id\ttext\n1\ta, b\n2\tgröße\n".encode(),
}
_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".zstd": zstandard.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.parquet", "parquet"),
        ("A.PARQUET", "parquet"),
        ("a.jsonl", "jsonl"),
        ("a.jsonl.gz", "jsonl"),
        ("a.json.zst", "jsonl"),
        ("a.jsonl.zstd", "jsonl"),
        ("a.jsonl.xz", "jsonl"),
        ("a.jsonl.bz2", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.csv.gz", "csv"),
        ("a.tsv", "csv"),
        ("a.arrow", "arrow"),
        ("a.feather", "arrow"),
        ("a.warc.gz", "warc"),
        ("a.warc.wet.gz", "warc"),
        ("a.wet", "warc"),
        ("a.gz", None),
        ("parquet", None),
        ("gz", None),
        ("a.parquet.bak", None),
        ("a.parquet.gz", None),
        ("a.jsonl.gz.gz", None),
    ],
)
def test_the_format_of_a_suffix(name: str, expected: str | None) -> None:
    assert format_of(name) == expected


def test_the_parts_of_a_name() -> None:
    names = ["a.jsonl", "a.JSONL.GZ", "a.csv.zst", "a.b.tsv.zstd", "a.xz", "a.warc.wet.bz2", "a.txt", "a"]
    assert [compression_of(name) for name in names] == [None, "gzip", "zstd", "zstd", "xz", "bz2", None, None]
    assert [stem_of(name) for name in names] == ["a", "a", "a", "a.b", "a", "a.warc", "a.txt", "a"]
    assert [delimiter_of(name) for name in ("a.csv", "a.tsv", "a.TSV.gz")] == [",", "\t", "\t"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("notes.txt", _TEXT),
        ("notes.txt.gz", _TEXT),
        ("README", "no suffix"),
        ("a sentence. With a dot", "unknown suffix"),
        ("state.json", "side file"),
        ("dataset_info.json", "side file"),
        ("part-0.parquet.crc", "side file"),
    ],
)
def test_names_that_are_not_data(name: str, kind: str) -> None:
    assert meaning_of(name) == Meaning(left_aside=kind)


def test_a_declared_format_is_that_of_every_file_except_archives_and_side_files() -> None:
    for name in ("notes.txt", "README", "a.parquet", "a.avro", "a.jsonl.xz"):
        assert meaning_of(name, "jsonl") == Meaning(format="jsonl")
    for name in ("a.zip", "a.jsonl.lz4", "a.tar.gz"):
        problem = meaning_of(name, "jsonl").problem
        assert problem is not None
        assert "not read" in problem
    assert meaning_of("state.json", "jsonl") == Meaning(left_aside="side file")
    assert meaning_of("state.json", "jsonl", is_named=True) == Meaning(format="jsonl")


def rows_of(path: Path) -> list[dict[str, str]]:
    needs = (ColumnNeed("id", "id"), ColumnNeed("text", "text"))
    (partition,) = plan_inputs(InputSection(paths=[str(path)]), needs=needs).partitions
    return [row for batch in PartitionReader(partition, needs, stage="test") for row in batch.to_pylist()]


@pytest.mark.parametrize("format", _LINES)
@pytest.mark.parametrize("compression", _COMPRESS)
def test_files_are_read_as_their_suffixes_name_them(tmp_path: Path, format: str, compression: str) -> None:
    path = tmp_path / f"a.{format}{compression}"
    path.write_bytes(_COMPRESS[compression](_LINES[format]))
    assert rows_of(path) == ROWS


@pytest.mark.parametrize(
    "name", ["a::b", "memory::x", "file:x", "[a]", "a?b", "a*b", "a#b", "a%20b", "a\nb", "~", "{x}"]
)
@pytest.mark.parametrize("format", _LINES)
def test_names_that_mean_something_elsewhere_are_names_of_files(tmp_path: Path, name: str, format: str) -> None:
    path = tmp_path / f"{name}.{format}"
    path.write_bytes(_LINES[format])
    assert rows_of(tmp_path) == rows_of(path) == ROWS


def test_feather_files_are_read(tmp_path: Path) -> None:
    pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), str(tmp_path / "a.feather"), compression="uncompressed")
    assert rows_of(tmp_path / "a.feather") == ROWS


@pytest.mark.parametrize("compression", [".xz", ".bz2", ".zstd"])
def test_a_cut_compressed_file_is_an_input_error(tmp_path: Path, compression: str) -> None:
    path = tmp_path / f"a.jsonl{compression}"
    path.write_bytes(_COMPRESS[compression](_LINES["jsonl"] * 1000)[:-20])
    with pytest.raises(InputError):
        rows_of(path)
