"""The lines of a JSONL file, plain or compressed; files that hold something else are named as what they are."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.compression import open_file
from colophon.shards.common.text_encoding import encoding_problem

_BLOCK_BYTES = 1 << 20
_SHOWN_BYTES = 1 << 10
_MARK_BYTES = 16

Line = bytes | bytearray


@dataclass(frozen=True)
class LongLine:
    """A line that was too long to be read."""

    num_bytes: int
    """Without its end."""
    is_ended: bool


class Block(NamedTuple):
    """Whole lines, or in place of one that is too long its size."""

    begin: int
    """The place of the first byte in the content of the file."""
    lines: Line | LongLine


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
        check_encoding(lines)
        yield lines


def check_encoding(lines: io.BufferedReader) -> None:
    """Check the first bytes of a file, which remain to be read.

    Raises:
        InputError: the file is not UTF-8.
    """
    if problem := encoding_problem(lines.peek(_MARK_BYTES)[:_MARK_BYTES]):
        raise InputError(problem)


def line_blocks(file: io.BufferedReader, *, limit: int, begin: int = 0, last: int | None = None) -> Iterator[Block]:
    """Whole lines, about 1 MiB at a time; a line of more than 1 MiB may be a block of its own.

    Args:
        file: the file.
        limit: bytes of the longest line, at least 2 MiB; in place of a longer one its size is given. Such a line is
            read without being held in memory.
        begin: the place in the content from which the file is read.
        last: the last place at which a line may begin; None: that of the last line.
    """
    while content := file.read(_BLOCK_BYTES if last is None else max(min(_BLOCK_BYTES, last + 1 - begin), 0)):
        rest = b"" if content.endswith(b"\n") else file.readline(_BLOCK_BYTES)
        if len(rest) < _BLOCK_BYTES or rest.endswith(b"\n"):
            yield Block(begin, content + rest)
            begin += len(content) + len(rest)
            continue
        whole = content.rfind(b"\n") + 1
        if whole:
            yield Block(begin, content[:whole])
        begin += whole
        num_bytes = yield from _long_line(file, content[whole:] + rest, begin, limit)
        begin += num_bytes


def _long_line(file: io.BufferedReader, start: bytes, begin: int, limit: int) -> Generator[Block, None, int]:
    """The line that begins with `start`; only its size if that is above `limit`. Returns its bytes with its end."""
    line = bytearray(start)  # grows in place
    while not line.endswith(b"\n") and len(line) <= limit and (part := file.readline(_BLOCK_BYTES)):
        line += part
    num_bytes, is_ended = len(line), line.endswith(b"\n")
    if num_bytes <= limit:
        lines = [line]
        del line
        yield Block(begin, lines.pop())  # not bound to a name: it is freed when the caller drops it
        return num_bytes
    while not is_ended and (part := file.readline(_BLOCK_BYTES)):
        num_bytes += len(part)
        is_ended = part.endswith(b"\n")
    yield Block(begin, LongLine(num_bytes - is_ended, is_ended))
    return num_bytes


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
