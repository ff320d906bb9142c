"""Reading `.zst` through fsspec without silent losses.

fsspec's own reader stops at the end of the first frame, and treats a truncated file as a short one. Arrow's reads all
frames and raises OSError when the last is incomplete.
"""

from __future__ import annotations

import io
from typing import Any

import fsspec.compression
import pyarrow as pa

_BLOCK_BYTES = 1 << 20


def register_zstd() -> None:
    """Let fsspec read zstd through Arrow, in the whole process, datatrove included; writing does not change."""
    fsspec_zstd = fsspec.compression.compr["zstd"]

    def open_zstd(file: Any, mode: str = "rb", **options: Any) -> Any:
        if "r" not in mode:
            return fsspec_zstd(file, mode=mode, **options)
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"), _BLOCK_BYTES)

    fsspec.compression.register_compression("zstd", open_zstd, ["zst", "zstd"], force=True)
