"""Pieces of a large JSONL file: which bytes each is, and its lines.

A piece has the lines that begin after a line end in it; the first piece has the first line too. So each line belongs to
one piece, wherever the cut is: in a line, in a character, or in a line that is longer than a piece. A piece is read
from its own bytes, and to the end of its last line in the bytes after it.

A plain file is cut anywhere, one in zstd between frames that state their size. Other compressions have no place from
which reading could begin. A file of a store is cut if the store sends parts of it; in zstd only with a seek table.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec.compression

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.compression import open_as
from colophon.pipeline.inputs.jsonl.lines import Block, check_encoding, line_blocks, open_lines
from colophon.pipeline.inputs.jsonl.zstd_frames import Frame, frames_of
from colophon.pipeline.inputs.search.formats import compression_of
from colophon.shards.stores.retry import is_transient

MIN_PIECE_BYTES = 256 << 10
"""The fewest bytes of a piece, but for the last of a file, whatever the recipe wants: each costs files and records."""
_BLOCK_BYTES = 1 << 20
_PROBE_BYTES = 1 << 16
_MOST_COMPRESSION = 16
"""A zstd file of less than a sixteenth of `partition_bytes` is taken to be one piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a JSONL file. Content is what the file has decompressed."""

    number: int
    begin: int
    """Its first byte in the file, and one past its last."""
    end: int
    content_begin: int
    """Its first byte of the content, and one past its last."""
    content_end: int


def cut(url: str, size: int, *, piece_bytes: int) -> tuple[Piece, ...]:
    """The pieces of a file, of about `piece_bytes` of content each; none if it is read as a whole.

    Cost: nothing of a plain local file; of zstd see `frames_of`; of a store's file one or two requests.

    Args:
        url: the file.
        size: its bytes.
        piece_bytes: a piece of a plain file has as many, the last one fewer; one of a zstd file has them or is one
            frame. At least `MIN_PIECE_BYTES`.

    Raises:
        OSError: the file cannot be read.
    """
    compression, is_remote = compression_of(url), "://" in url
    content_bytes = size * (1 if compression is None else _MOST_COMPRESSION)
    if compression not in (None, "zstd") or content_bytes <= most_uncut_bytes(piece_bytes):
        return ()
    piece_bytes = max(piece_bytes, MIN_PIECE_BYTES)
    if is_remote and not _sends_parts(url, size):
        return ()
    if compression is None:
        begins = range(0, size, piece_bytes)
        places = [(begin, min(begin + piece_bytes, size)) for begin in begins]
        return _numbered([(*place, *place) for place in places])
    options: dict[str, Any] = {"block_size": _PROBE_BYTES} if is_remote else {}
    with open_as(url, None, **options) as file:
        frames = frames_of(file, size, may_walk=not is_remote)
    return _numbered(_joined(frames, size, piece_bytes=piece_bytes)) if frames else ()


def most_uncut_bytes(piece_bytes: int) -> int:
    """The most bytes of a file that is one piece although it can be cut."""
    return max(piece_bytes, MIN_PIECE_BYTES)


def _sends_parts(url: str, size: int) -> bool:
    """Whether a store sends a part of a file alone."""
    with open_as(url, None, block_size=_PROBE_BYTES) as file:
        try:
            file.seek(size - 1)
            return len(file.read(1)) == 1
        except Exception as error:  # fsspec raises ValueError, and OSError of an unknown kind
            if is_transient(error):
                raise
            return False


def _joined(frames: Sequence[Frame], size: int, *, piece_bytes: int) -> list[tuple[int, int, int, int]]:
    """Consecutive frames as pieces of at most `piece_bytes`, as begin, end, begin and end of the content."""
    pieces: list[tuple[int, int, int, int]] = []
    begin = content_begin = content = 0
    for frame in frames:
        if content > content_begin and content + frame.content_bytes - content_begin > piece_bytes:
            pieces.append((begin, frame.begin, content_begin, content))
            begin, content_begin = frame.begin, content
        content += frame.content_bytes
    return [*pieces, (begin, size, content_begin, content)]


def _numbered(places: Sequence[tuple[int, int, int, int]]) -> tuple[Piece, ...]:
    return tuple(
        Piece(number=number, begin=begin, end=end, content_begin=content_begin, content_end=content_end)
        for number, (begin, end, content_begin, content_end) in enumerate(places)
        if len(places) > 1
    )


@contextmanager
def open_blocks(url: str, piece: Piece | None, *, limit: int) -> Iterator[Iterator[Block]]:
    """Open a file, or the lines of a piece, as blocks of lines, see `line_blocks`.

    Args:
        url: the file.
        piece: a piece of it; None: the whole.
        limit: see `line_blocks`.

    Raises:
        InputError: the file is not UTF-8, by its first bytes; or the content of a piece does not have the size that the
            file's headers state.
    """
    if piece is None:
        with open_lines(url) as lines:
            yield line_blocks(lines, limit=limit)
        return
    with open_as(url, None) as file, _content(file, compression_of(url), piece) as lines:
        if piece.number:
            skipped = _skip_line(lines, most=piece.content_end - piece.content_begin)
        else:
            skipped = 0
            check_encoding(lines)
        if skipped is None:
            yield iter(())
        else:
            begin = piece.content_begin + skipped
            yield line_blocks(lines, limit=limit, begin=begin, last=piece.content_end)


def _content(file: Any, compression: str | None, piece: Piece) -> io.BufferedReader:
    raw: Any = _Content(file, compression, piece)
    return io.BufferedReader(raw, _BLOCK_BYTES)


def _skip_line(lines: io.BufferedReader, *, most: int) -> int | None:
    """Read to the first line end, and return how many bytes that is; None if there is none in `most` bytes."""
    skipped = 0
    while skipped < most and (part := lines.readline(min(_BLOCK_BYTES, most - skipped))):
        skipped += len(part)
        if part.endswith(b"\n"):
            return skipped
    return None


class _Content(io.RawIOBase):
    """The content of a piece and then, for its last line, of the rest of the file.

    Raises:
        InputError: the piece's content does not have the size that the file's headers state.
    """

    def __init__(self, file: Any, compression: str | None, piece: Piece) -> None:
        super().__init__()
        self._file, self._compression, self._piece = file, compression, piece
        self._unread = piece.content_end - piece.content_begin
        self._is_own = True
        self._part = self._opened(piece.begin, piece.end)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = int(self._part.readinto(buffer))
        if not self._is_own:
            return size
        self._unread -= size
        if self._unread < 0 or (not size and self._unread):
            stated = self._piece.content_end - self._piece.content_begin
            raise InputError(f"bytes {self._piece.begin:,} to {self._piece.end:,} do not unpack to {stated:,} bytes")
        if size:
            return size
        self._is_own, self._part = False, self._opened(self._piece.end, None)
        return int(self._part.readinto(buffer))

    def _opened(self, begin: int, end: int | None) -> Any:
        part = _Range(self._file, begin, end)
        return part if self._compression is None else fsspec.compression.compr[self._compression](part, mode="rb")


class _Range(io.RawIOBase):
    """The bytes of a file from `begin` to `end`; None: to its end. Nothing else may read the file meanwhile."""

    def __init__(self, file: Any, begin: int, end: int | None) -> None:
        super().__init__()
        file.seek(begin)
        self._file, self._left = file, end - begin if end is not None else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer) if self._left is None else min(len(buffer), self._left)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        if self._left is not None:
            self._left -= len(data)
        return len(data)
