"""The lines of a JSONL file, plain or compressed; files that hold something else are named as what they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.compression import open_file

MAX_LINE_BYTES = 256 << 20
"""A longer line is excluded by its number, without reading it whole."""

_BLOCK_BYTES = 1 << 20
TOO_LONG = b"a line of more than 256 MiB"

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


def line_blocks(file: io.BufferedReader) -> Iterator[bytes]:
    """Whole lines, about 1 MiB at a time; `TOO_LONG` in place of a line of more than about `MAX_LINE_BYTES`."""
    while block := file.read(_BLOCK_BYTES):
        rest = b"" if block.endswith(b"\n") else file.readline(MAX_LINE_BYTES)
        if len(rest) < MAX_LINE_BYTES or rest.endswith(b"\n"):
            yield block + rest
            continue
        while len(rest) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES)
        yield block[: block.rfind(b"\n") + 1] + TOO_LONG + b"\n"


def other_format(line: bytes) -> str | None:
    """The name of a JSON text that extends over several lines, from its first line; None if it may be one document."""
    line = line.removeprefix(b"\xef\xbb\xbf").strip()
    if line.startswith(b"["):
        return "one JSON array, not an object on each line. Convert it: jq -c '.[]'"
    if line.startswith(b"{") and line.endswith((b"{", b"[", b",", b":")):
        return "a JSON object over several lines, not one on each line. Convert it: jq -c ."
    return None
