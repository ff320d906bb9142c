"""The records of a WARC file, read to the file's end, and checked: warcio takes a file that is cut for one that ends.

A record is complete if its headers end, its content has the length that they state, and two line ends follow. Only
decompressed bytes are seen here; a gzip member or zstd frame that is cut raises in the decompressor.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.failures import input_errors

_SKIPPED_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 20
"""The most bytes of a record's headers, and of the headers of HTTP in its content."""
_LINE_ENDS = (b"\r\n", b"\n")
_VERSION = b"WARC/"


class DamagedError(Exception):
    """A place from which on a file holds no complete record."""

    def __init__(self, number: int, offset: int, reason: str) -> None:
        """Name the record, counted from 1, and the byte of the decompressed file at which it begins."""
        super().__init__(f"record {number} at byte {offset:,}: {reason}; nothing after it was read")
        self.number = number


@dataclass(frozen=True)
class Record:
    """A record whose content has not been read."""

    number: int
    type: str
    parsed: Any
    """warcio's ArcWarcRecord; its `raw_stream` ends with the content."""

    def header(self, name: str) -> str | None:
        """The first header with this name."""
        value: str | None = self.parsed.rec_headers.get_header(name)
        return value


class CountingStream:
    """A stream that knows its place, and whose errors are those of the file's content."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        """Read `stream` from its beginning."""
        self._stream = stream
        self.offset = 0
        self.has_ended = False
        self._header_room = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        return self._counted(self._stream.read, min(size, _SKIPPED_BYTES))

    def readline(self, size: int = -1) -> bytes:
        """A line with its end. Without `size` it is a header.

        Raises:
            InputError: the headers since `begin_headers` are too long.
        """
        if size >= 0:
            return self._counted(self._stream.readline, size)
        line = self._counted(self._stream.readline, self._header_room + 1)
        self._header_room = header_room(self._header_room, line)
        return line

    def begin_headers(self) -> None:
        """Begin to count the bytes of headers."""
        self._header_room = MAX_HEADER_BYTES

    def _counted(self, read: Any, size: int) -> bytes:
        with input_errors():  # gzip raises EOFError, which warcio would take for the end
            data: bytes = read(size)
        self.offset += len(data)
        self.has_ended = not data and size != 0
        return data


def header_room(room: int, line: bytes) -> int:
    """The bytes of headers that may follow a line, of at most `room` + 1 bytes, where it and they may have `room`.

    Raises:
        InputError: the line is longer.
    """
    if len(line) > room:
        raise InputError(f"headers of more than {MAX_HEADER_BYTES:,} bytes")
    return room - len(line)


def records(stream: CountingStream) -> Iterator[Record]:
    """The records; each is given before it is known whether it is complete, so that the caller reads its content.

    A record is complete once the next is given, or the iteration ends, or an error names a later one.

    Raises:
        DamagedError: the file is damaged from the named record on.
    """
    from warcio.recordloader import ArcWarcRecordLoader

    logging.getLogger("warcio.recordloader").setLevel(logging.ERROR)  # it warns of spaces in a URL
    loader = ArcWarcRecordLoader(verify_http=False, arc2warc=False)
    number, offset = 1, 0
    try:
        while line := _next_line(stream):
            offset = stream.offset - len(line)
            if not line.startswith(_VERSION):
                raise InputError(f"expected WARC/1.0, found {line[:40]!r}")
            with input_errors():
                parsed = loader.parse_record_stream(stream, line, "warc", no_record_parse=True)
            _check_length(parsed, stream)
            yield Record(number, str(parsed.rec_headers.get_header("WARC-Type")).lower(), parsed)
            _check_end(parsed.raw_stream, stream)
            number, offset = number + 1, stream.offset
    except InputError as error:
        raise DamagedError(number, offset, str(error)) from error


def _next_line(stream: CountingStream) -> bytes:
    """The next line that is not blank; empty at the end of the file."""
    while True:
        stream.begin_headers()
        line = stream.readline()
        if line not in _LINE_ENDS:
            return line


def _check_length(parsed: Any, stream: CountingStream) -> None:
    if stream.has_ended:
        raise InputError("the file ends in its headers")
    stated = parsed.rec_headers.get_header("Content-Length")
    if stated is None or not stated.strip().isdecimal() or not stated.isascii():
        raise InputError(f"its Content-Length is {stated!r}, not a number")


def _check_end(content: Any, stream: CountingStream) -> None:
    while content.read(_SKIPPED_BYTES):
        pass
    if content.limit:
        raise InputError(f"the file ends {content.limit:,} bytes before the end of its content")
    for _ in range(2):
        line = stream.readline(3)
        if line not in _LINE_ENDS:
            found = "the end of the file" if not line else repr(line + stream.readline(40))
            raise InputError(f"no line ends after its content, but {found}: it is cut, or its Content-Length is wrong")
