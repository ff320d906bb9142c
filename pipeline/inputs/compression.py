"""Opening files of the input, and decompression through fsspec without silent losses, in the whole process.

fsspec's reader of zstd stops at the end of the first frame and treats a truncated file as a short one; Python's readers
of bzip2 and xz ignore whatever follows the first stream if it is no stream. Here all streams and frames of a file are
read, and one that is cut, or bytes that are none, are an error. gzip is Python's, which does so.

zstd is read by Arrow. Its windows end at 128 MiB; a file whose first frame has a larger one (`zstd --long=28` to 31) is
read by zstandard, in as much memory as the window has, 2 GiB at most.
"""

from __future__ import annotations

import bz2
import io
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fsspec.compression
import pyarrow as pa
import zstandard
from fsspec.core import OpenFile
from fsspec.implementations.local import LocalFileSystem

from colophon.pipeline.inputs.search.formats import compression_of
from colophon.shards.stores.filesystems import open_url

_BLOCK_BYTES = 1 << 20
_ARROW_WINDOW_BYTES = 128 << 20
_MAX_WINDOW_BYTES = 1 << 31
"""The format allows no larger one in practice: libzstd reads and writes none."""
_ZSTD_CHUNK_BYTES = 1 << 10
"""zstandard decompresses what it gets as a whole: 1 KiB gives at most about 32 MiB."""
_CHUNK_BYTES = 1 << 16
_HEADER_BYTES = 18
_SKIPPABLE_MAGIC = 0x184D2A50


def open_file(url: str, **options: Any) -> OpenFile:
    """A file of the input for reading from front to back, decompressed by its suffix.

    Args:
        url: an absolute path or a URL; a path is never read as a chain of URLs, also if it has `::`.
        options: those of a store's file system.
    """
    return open_as(url, compression_of(url), **options)


def open_as(url: str, compression: str | None, **options: Any) -> OpenFile:
    """The same with a compression of fsspec's names; None: the bytes as they are."""
    if "://" in url:
        return open_url(url, compression=compression, **options)
    return OpenFile(LocalFileSystem(), url, "rb", compression)


class _Decompressed(io.RawIOBase):
    """The content of all streams of a file, one after the other.

    Args:
        file: the compressed file.
        new: a decompressor of one stream.
        chunk: bytes that a decompressor gets at once.
        bounded: whether the decompressor can stop at a number of bytes.
        padding: bytes of which there may be any number between and after streams.
    """

    def __init__(
        self, file: Any, new: Callable[[], Any], *, chunk: int, bounded: bool = True, padding: bytes = b""
    ) -> None:
        super().__init__()
        self._file, self._new, self._chunk, self._bounded, self._padding = file, new, chunk, bounded, padding
        self._decoder: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self._output:
            if not self._fill():
                return 0
        size = min(len(view), len(self._output))
        view[:size] = self._output[:size]
        self._output = self._output[size:]
        return size

    def _fill(self) -> bool:
        """Decompress some bytes; False at the end of the file."""
        is_waiting = self._decoder is not None and self._bounded and not self._decoder.needs_input
        if not self._input and not is_waiting:
            self._input = self._file.read(self._chunk)
            if not self._input:
                if self._decoder is not None:
                    raise EOFError("Compressed file ended before the end-of-stream marker was reached")
                return False
        if self._decoder is None:
            self._input = self._input.lstrip(self._padding) if self._padding else self._input
            if not self._input:
                return True
            self._decoder = self._new()
        limit = (_BLOCK_BYTES,) if self._bounded else ()
        self._output = memoryview(self._decoder.decompress(self._input, *limit))
        self._input = b""
        if self._decoder.eof:
            self._input, self._decoder = self._decoder.unused_data, None
        return True


def _register_compressions() -> None:
    """Let fsspec read zstd, bzip2 and xz through this module; writing does not change."""
    _register("zstd", ["zst", "zstd"], _open_zstd)
    _register("bz2", ["bz2"], lambda file: _Decompressed(file, bz2.BZ2Decompressor, chunk=_CHUNK_BYTES))
    _register("xz", ["xz"], lambda file: _Decompressed(file, lzma.LZMADecompressor, chunk=_CHUNK_BYTES, padding=b"\0"))


@contextmanager
def open_to_the_damage(url: str, compression: str | None) -> Iterator[io.BufferedIOBase]:
    """Open a file whose bytes before a damage are all read before the error is raised; of zstd slower than fsspec."""
    with open_as(url, None if compression == "zstd" else compression) as file:
        raw = _zstd_streams(file) if compression == "zstd" else _Raw(file)
        yield io.BufferedReader(raw, _BLOCK_BYTES)


def _register(name: str, suffixes: list[str], open_stream: Callable[[Any], Any]) -> None:
    own = fsspec.compression.compr[name]

    def opened(file: Any, mode: str = "rb", **options: Any) -> Any:
        if "r" not in mode:
            return own(file, mode=mode, **options)
        return io.BufferedReader(open_stream(file), _BLOCK_BYTES)

    fsspec.compression.register_compression(name, opened, suffixes, force=True)


def _open_zstd(file: Any) -> Any:
    source = io.BufferedReader(_Raw(file), _BLOCK_BYTES)
    if _window_bytes(source) <= _ARROW_WINDOW_BYTES:
        return pa.CompressedInputStream(pa.PythonFile(source, "r"), "zstd")
    return _zstd_streams(source)


def _zstd_streams(file: Any) -> _Decompressed:
    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    return _Decompressed(file, decoder.decompressobj, chunk=_ZSTD_CHUNK_BYTES, bounded=False)


def _window_bytes(source: Any) -> int:
    """The window of the first frame that is not skippable, or 0, from bytes that are not yet consumed."""
    head = source.peek(_BLOCK_BYTES)
    at = 0
    while int.from_bytes(head[at : at + 4], "little") & ~0xF == _SKIPPABLE_MAGIC:
        at += 8 + int.from_bytes(head[at + 4 : at + 8], "little")
    try:
        return int(zstandard.get_frame_parameters(head[at : at + _HEADER_BYTES]).window_size)
    except zstandard.ZstdError:  # no frame, or cut: the error comes where it is read
        return 0


class _Raw(io.RawIOBase):
    """A file of any file system as a raw stream: what is there is returned before an error is raised."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._read = getattr(file, "read1", file.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


_register_compressions()
