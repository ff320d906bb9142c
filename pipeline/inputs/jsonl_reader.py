"""JSON lines as rows; a line that is not a document is reported by its number, and the next line follows."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import orjson

from colophon.pipeline.errors import one_line
from colophon.pipeline.inputs.partitions import Partition


def jsonl_rows(partition: Partition, *, report: Callable[[int, str], None]) -> Iterator[dict[str, Any]]:
    """The documents of a file, plain or compressed.

    Args:
        partition: a whole file.
        report: called with the number, from 1, of each line that is not a document, and the reason.
    """
    with (
        fsspec.open(partition.url, "rb", compression="infer") as handle,
        io.BufferedReader(handle) as lines,
    ):
        for number, line in enumerate(lines, start=1):
            try:
                yield _json_row(line, partition.text)
            except ValueError as error:
                report(number, one_line(error))


def _json_row(line: bytes, text: str) -> dict[str, Any]:
    if not line.strip():
        raise ValueError("blank line")
    row = orjson.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"a JSON {type(row).__name__}, not an object")
    if text not in row:
        raise ValueError(f"no key {text!r}; keys: {', '.join(row)}")
    if not isinstance(row[text], str | None):
        raise ValueError(f"{text!r} is {type(row[text]).__name__}, not a string")
    return row
