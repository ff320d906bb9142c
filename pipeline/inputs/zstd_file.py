"""Reading `.zst` through fsspec so that nothing is lost in silence.

fsspec's own reader stops at the end of the first frame, and takes a file that was cut off for a short one. This one
reads all frames and raises EOFError where the last is not whole. `register` puts it in fsspec's place, for every
reader of the process, datatrove's too.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import fsspec.compression
import zstandard

_BLOCK = 1 << 20


class ZstdReader(io.RawIOBase):
    """The decompressed bytes of all frames of a file.

    Raises:
        EOFError: the file ends within a frame.
        ValueError: the file is not zstd, or damaged.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._frame_has_begun = False
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as one block goes; 0 at the end."""
        while not self._ready:
            if not self._compressed:
                self._compressed = self._source.read(_BLOCK)
            if not self._compressed:
                if self._frame_has_begun:
                    raise EOFError("compressed file ended before the end of its last frame")
                return 0
            self._decompress()
        part = self._ready[: len(buffer)]
        buffer[: len(part)] = part
        self._ready = self._ready[len(part) :]
        return len(part)

    def _decompress(self) -> None:
        try:
            self._ready = memoryview(self._frame.decompress(self._compressed))
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        self._frame_has_begun, self._compressed = True, b""
        if self._frame.eof:
            self._compressed = self._frame.unused_data
            self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._frame_has_begun = False

    def close(self) -> None:
        """Close the file too."""
        self._source.close()
        super().close()


def register() -> None:
    """Let fsspec read zstd with this reader; writing stays as it was."""
    write = fsspec.compression.compr["zstd"]

    def opened(file: Any, mode: str = "rb", **options: Any) -> Any:
        return io.BufferedReader(ZstdReader(file), _BLOCK) if "r" in mode else write(file, mode=mode, **options)

    fsspec.compression.register_compression("zstd", opened, "zst", force=True)
