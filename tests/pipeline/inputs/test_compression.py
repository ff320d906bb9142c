"""Compressed files: all their streams are read, and what is cut or no stream is an error."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import zstandard

from colophon.pipeline.inputs.compression import open_to_the_damage

DATA = random.Random(0).randbytes(3000) * 400
Compress = Callable[[bytes], bytes]


def zstd_with_window(log: int) -> Compress:
    """A frame that does not state the size of its content, as `zstd --long` writes from a pipe."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=log, enable_ldm=True)

    def compress(data: bytes) -> bytes:
        stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        return stream.compress(data) + stream.flush()

    return compress


COMPRESSIONS: dict[str, tuple[str, Compress]] = {
    "gzip": ("gzip", gzip.compress),
    "bzip2": ("bz2", bz2.compress),
    "xz": ("xz", lzma.compress),
    "zstd": ("zstd", zstandard.compress),
    "zstd --long=28": ("zstd", zstd_with_window(28)),
    "zstd --long=31": ("zstd", zstd_with_window(31)),
}
SKIPPABLE = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"


@pytest.fixture(params=COMPRESSIONS)
def compression(request: pytest.FixtureRequest) -> tuple[str, Compress]:
    return COMPRESSIONS[request.param]


def read(content: bytes, name: str, path: Path) -> bytes:
    """The bytes that both ways of opening a file give."""
    path.write_bytes(content)
    with open_to_the_damage(str(path), name) as file:
        careful = file.read()
    with fsspec.open(str(path), "rb", compression=name) as file:
        assert file.read() == careful
    return careful


def test_all_streams_of_a_file_are_read(compression: tuple[str, Compress], tmp_path: Path) -> None:
    name, compress = compression
    path = tmp_path / "a"
    assert read(compress(DATA), name, path) == DATA
    assert read(compress(DATA[:999]) + compress(b"") + compress(DATA[999:]), name, path) == DATA
    assert read(compress(b""), name, path) == b""
    assert read(b"", name, path) == b""
    if name == "zstd":
        assert read(SKIPPABLE + compress(DATA[:5]) + SKIPPABLE + compress(DATA[5:]) + SKIPPABLE, name, path) == DATA
    if name in ("gzip", "xz"):
        assert read(compress(DATA[:999]) + bytes(8) + compress(DATA[999:]) + bytes(4096), name, path) == DATA


@pytest.mark.parametrize("kept", [1, 6, 0.3, 0.9, -1, -4, -9])
def test_a_cut_stream_is_an_error(compression: tuple[str, Compress], kept: float, tmp_path: Path) -> None:
    name, compress = compression
    for before in (b"", compress(DATA[:999])):
        stream = compress(DATA)
        cut = stream[: int(len(stream) * kept) if isinstance(kept, float) else kept]
        with pytest.raises((EOFError, OSError, lzma.LZMAError, zstandard.ZstdError)):
            read(before + cut, name, tmp_path / "a")


def test_bytes_after_the_last_stream_are_an_error(compression: tuple[str, Compress], tmp_path: Path) -> None:
    name, compress = compression
    with pytest.raises((EOFError, OSError, lzma.LZMAError, zstandard.ZstdError)):
        read(compress(DATA) + b"trailing garbage", name, tmp_path / "a")


def test_the_bytes_before_a_cut_are_read_before_the_error(compression: tuple[str, Compress], tmp_path: Path) -> None:
    name, compress = compression
    path = tmp_path / "a"
    path.write_bytes(compress(DATA[:100_000]) + compress(DATA[100_000:])[:-3])
    with open_to_the_damage(str(path), name) as file:
        assert file.read(100_000) == DATA[:100_000]
        with pytest.raises((EOFError, OSError)):
            file.read()
