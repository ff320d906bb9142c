"""The lines of a JSONL file, plain or compressed; files that hold something else are named as what they are."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.compression import open_file

_BLOCK_BYTES = 1 << 20
_SHOWN_BYTES = 1 << 10

Line = bytes | bytearray

_ENCODINGS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"{\0\0\0": "UTF-32LE",
    b"\0\0\0{": "UTF-32BE",
    b"{\0": "UTF-16LE",
    b"\0{": "UTF-16BE",
}
"""By a file's first bytes: byte order marks, and `{`."""


@dataclass(frozen=True)
class LongLine:
    """A line that was too long to be read."""

    num_bytes: int


@contextmanager
def open_lines(url: str, **options: Any) -> Iterator[io.BufferedReader]:
    """Open a file as lines of bytes, decompressed by its suffix; `options` are those of the file system.

    Raises:
        InputError: the file is not UTF-8, by its first bytes.
    """
    with (
        open_file(url, **options) as handle,
        io.BufferedReader(handle, _BLOCK_BYTES) as lines,
    ):
        start = lines.peek(4)[:4]
        encoding = next((name for mark, name in _ENCODINGS.items() if start.startswith(mark)), None)
        if encoding is not None:
            raise InputError(f"{encoding}, not UTF-8. Convert it: iconv -f {encoding} -t UTF-8")
        yield lines


def line_blocks(file: io.BufferedReader, *, limit: int) -> Iterator[Line | LongLine]:
    """Whole lines, about 1 MiB at a time; a line of more than 1 MiB may be a block of its own.

    Args:
        file: the file.
        limit: bytes of the longest line, at least 2 MiB; in place of a longer one its size is given. Such a line is
            read without being held in memory.
    """
    while block := file.read(_BLOCK_BYTES):
        rest = b"" if block.endswith(b"\n") else file.readline(_BLOCK_BYTES)
        if len(rest) < _BLOCK_BYTES or rest.endswith(b"\n"):
            yield block + rest
            continue
        begin = block.rfind(b"\n") + 1
        if begin:
            yield block[:begin]
        yield _long_line(file, block[begin:] + rest, limit)  # not bound to a name: it is freed when the caller drops it


def _long_line(file: io.BufferedReader, start: bytes, limit: int) -> Line | LongLine:
    """The line that begins with `start`; only its size if that is above `limit`."""
    line = bytearray(start)  # grows in place
    while not line.endswith(b"\n") and len(line) <= limit and (part := file.readline(_BLOCK_BYTES)):
        line += part
    if len(line) <= limit:
        return line
    num_bytes, is_ended = len(line), line.endswith(b"\n")
    while not is_ended and (part := file.readline(_BLOCK_BYTES)):
        num_bytes += len(part)
        is_ended = part.endswith(b"\n")
    return LongLine(num_bytes - is_ended)


def lines_of(block: Line) -> Sequence[Line]:
    """The lines of a block; a single line is not copied and keeps its end."""
    if block.find(b"\n") in (-1, len(block) - 1):
        return [block]
    lines = block.split(b"\n")
    if not lines[-1]:  # the block ends with a line's end
        lines.pop()
    return lines


def other_format(line: Line) -> str | None:
    """The name of a JSON text that extends over several lines, from its first line; None if it may be one document."""
    start, end = line[:_SHOWN_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip(), line[-_SHOWN_BYTES:].rstrip()
    if start.startswith(b"["):
        return "one JSON array, not an object on each line. Convert it: jq -c '.[]'"
    if start.startswith(b"{") and end.endswith((b"{", b"[", b",", b":")):
        return "a JSON object over several lines, not one on each line. Convert it: jq -c ."
    return None
