"""Opening files of the input, and reading zstd through fsspec without silent losses.

fsspec's own reader stops at the end of the first frame, and treats a truncated file as a short one. Arrow's reads all
frames and raises OSError when the last is incomplete.
"""

from __future__ import annotations

import io
from typing import Any

import fsspec
import fsspec.compression
import pyarrow as pa
from fsspec.core import OpenFile
from fsspec.implementations.local import LocalFileSystem

from colophon.pipeline.inputs.search.formats import compression_of

_BLOCK_BYTES = 1 << 20


def open_file(url: str, **options: Any) -> OpenFile:
    """A file of the input for reading from front to back, decompressed by its suffix.

    Args:
        url: an absolute path or a URL; a path is never read as a chain of URLs, also if it has `::`.
        options: those of a store's file system.
    """
    compression = compression_of(url)
    if "://" in url:
        return fsspec.open(url, "rb", compression=compression, **options)
    return OpenFile(LocalFileSystem(), url, "rb", compression)


def _register_zstd() -> None:
    """Let fsspec read zstd through Arrow, in the whole process, datatrove included; writing does not change."""
    fsspec_zstd = fsspec.compression.compr["zstd"]

    def open_zstd(file: Any, mode: str = "rb", **options: Any) -> Any:
        if "r" not in mode:
            return fsspec_zstd(file, mode=mode, **options)
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"), _BLOCK_BYTES)

    fsspec.compression.register_compression("zstd", open_zstd, ["zst", "zstd"], force=True)


_register_zstd()
