"""The frames of a zstd file, found without decompressing: from its seek table, or from the headers of its blocks."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import zstandard

_MAGIC = 0xFD2FB528
_SKIPPABLE_MAGIC = 0x184D2A50
_LONGEST_HEADER = 18
_CHECKSUM_BYTES = 4
_REPEATED_BYTE, _RESERVED = 1, 3
"""Types of blocks: one byte that is repeated, and none that exists."""
_UNKNOWN = -1

_TABLE_MAGIC = 0x184D2A5E
_TABLE_END_MAGIC = 0x8F92EAB1
_TABLE_END = struct.Struct("<IBI")
_MOST_TABLE_BYTES = 64 << 20


class Frame(NamedTuple):
    """A frame, with the skippable frames after it."""

    begin: int
    """Its first byte in the file."""
    content_bytes: int
    """Its size decompressed, as its header or the seek table states it."""


def frames_of(file: Any, size: int, *, may_walk: bool) -> list[Frame] | None:
    """The frames of a file; None where one does not state its size, or the file is not what its headers state.

    Nobody has compared the sizes with the content: a reader must.

    Args:
        file: the compressed file, open for reading at any place.
        size: its bytes.
        may_walk: read the header of each block, one small read for each 128 KiB of content, if the file has no seek
            table. Reading stops at the first frame without a size.
    """
    table = _seek_table(file, size)
    if table is not None or not may_walk:
        return table
    try:
        return list(_walk(file, size))
    except (ValueError, struct.error, zstandard.ZstdError):
        return None


def _seek_table(file: Any, size: int) -> list[Frame] | None:
    """The frames by the table at the end of a file in zstd's seekable format; None if it has none that fits."""
    if size < _TABLE_END.size + 8:
        return None
    file.seek(size - _TABLE_END.size)
    number, flags, magic = _TABLE_END.unpack(file.read(_TABLE_END.size))
    entry_bytes = 12 if flags & 0x80 else 8
    content = number * entry_bytes + _TABLE_END.size
    if magic != _TABLE_END_MAGIC or flags & 0x7C or content > _MOST_TABLE_BYTES or content + 8 > size:
        return None
    file.seek(size - content - 8)
    if struct.unpack("<II", file.read(8)) != (_TABLE_MAGIC, content):
        return None
    entries = file.read(number * entry_bytes)
    frames, begin = [], 0
    for packed, unpacked in struct.iter_unpack("<II4x" if entry_bytes == 12 else "<II", entries):
        frames.append(Frame(begin, unpacked))
        begin += packed
    return frames if begin == size - content - 8 else None


def _walk(file: Any, size: int) -> Iterator[Frame]:
    """The frames by their headers.

    Raises:
        ValueError, struct.error, ZstdError: the file is damaged or cut, or a frame does not state its size.
    """
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(_LONGEST_HEADER)
        (magic,) = struct.unpack_from("<I", head)
        if magic & ~0xF == _SKIPPABLE_MAGIC:
            at += 8 + struct.unpack_from("<I", head, 4)[0]
            continue
        if magic != _MAGIC:
            raise ValueError("no frame")
        content_bytes = zstandard.frame_content_size(head)
        if content_bytes == _UNKNOWN:
            raise ValueError("a frame without its size")
        yield Frame(at, content_bytes)
        has_checksum = zstandard.get_frame_parameters(head).has_checksum
        at = _end_of_blocks(file, at + zstandard.frame_header_size(head)) + has_checksum * _CHECKSUM_BYTES
    if at != size:
        raise ValueError("cut")


def _end_of_blocks(file: Any, at: int) -> int:
    """The place after the last block of a frame whose first block is at `at`."""
    while True:
        file.seek(at)
        head = int.from_bytes(file.read(3).ljust(3, b"\xff"), "little")  # after the end all bits are set
        kind, block_bytes = head >> 1 & 3, head >> 3
        if kind == _RESERVED:
            raise ValueError("no block")
        at += 3 + (1 if kind == _REPEATED_BYTE else block_bytes)
        if head & 1:
            return at
