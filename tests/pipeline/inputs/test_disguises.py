"""Files that hold something other than their names say are quarantined as what they are."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from colophon.pipeline.errors import InputError
from tests.pipeline.inputs.reading import read

LINE = b'{"text": "A text.", "id": "a", "url": "u"}\n'
CSV = b"text,id,url\nA text.,a,u\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123\n"
PAGE = b"\n<!DOCTYPE html><html>404 Not Found</html>"
EMPTY = "it is empty, as no compressed file is"
NO_GZIP = "its name ends as that of a gzip file, and it is none"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        *(
            (f"a.{format}", POINTER, "it is a Git LFS pointer")
            for format in ("parquet", "jsonl", "csv", "arrow", "warc.gz")
        ),
        *((f"a.{format}", PAGE, "it is a web page") for format in ("parquet", "jsonl", "csv.gz")),
        ("a.parquet", b"PK\x03\x04", "it is a zip archive"),
        ("a.parquet", LINE, "Parquet magic bytes not found"),
        *((f"a.jsonl.{suffix}", b"", EMPTY) for suffix in ("gz", "zst", "xz", "bz2")),
        ("a.warc.gz", b"", EMPTY),
        ("a.jsonl", gzip.compress(LINE, mtime=0), "it is compressed with gzip, and its name does not end so"),
        ("a.csv", zstandard.compress(CSV), "it is compressed with zstd"),
        ("a.warc", lzma.compress(LINE), "it is compressed with xz"),
        ("a.jsonl.zst", bz2.compress(LINE), "it is compressed with bz2"),
        ("a.jsonl.gz", LINE, NO_GZIP),
        ("a.csv.gz", CSV, NO_GZIP),
        ("a.parquet", b"ARROW1\0\0", "it is a file of format arrow, read as parquet"),
        ("a.jsonl", b"PAR1\n{}", "it is a file of format parquet, read as jsonl"),
        ("a.jsonl.gz", gzip.compress(LINE, mtime=0)[:-9], "Compressed file ended before"),
    ],
)
def test_it_is_named_as_what_it_is(
    name: str, content: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    with pytest.raises(InputError) as error:
        read(name)
    assert str(error.value).startswith(reason)
