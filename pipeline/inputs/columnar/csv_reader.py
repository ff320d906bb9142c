"""CSV files, with commas or tabs (`.tsv`), plain or compressed, as batches of the needed columns.

The csv module reads them, in its strict mode: a quote that is not closed, or text after a closing quote, is an error.
Without it, such a quote joins rows in silence. Arrow's reader has a limit on the length of a row. Line ends inside
quotes stay as they are.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columnar.conversion import array_of
from colophon.pipeline.inputs.columns import BATCH_BYTES, BATCH_ROWS, ColumnNeed, column_problem, positions
from colophon.pipeline.inputs.compression import open_file
from colophon.pipeline.inputs.search.formats import delimiter_of

_HEADER_BYTES = 4 << 20


def csv_schema(url: str) -> pa.Schema:
    """The columns that the first row names, all strings.

    Raises:
        InputError: the file has no first row, or none in its first 4 MiB.
    """
    with open_file(url) as file:
        start = file.read(_HEADER_BYTES)
    # The last character of `start` may be cut.
    text = io.StringIO(start.decode("utf-8-sig", errors="ignore" if len(start) == _HEADER_BYTES else "strict"))
    names = next(_reader(text, url), None)
    if not names:
        raise InputError("no header: the first line names no column")
    return pa.schema([(name, pa.string()) for name in names])


def csv_batches(url: str, needs: Sequence[ColumnNeed]) -> Iterator[pa.RecordBatch]:
    """The needed columns that the file has, under their FineWeb names and in their types.

    Raises:
        InputError: the header lacks a needed column, or a row has more or fewer fields than the header.
        UnicodeDecodeError: the file is not UTF-8.
    """
    with (
        open_file(url) as file,
        io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text,
    ):
        reader = _reader(text, url)
        names = next(reader, [])
        schema = pa.schema([(name, pa.string()) for name in names])
        if problem := column_problem(schema, needs):
            raise InputError(problem)
        places = {name: place for name, (place,) in positions(schema, needs).items()}
        present = [need for need in needs if need.name in places]
        for rows in _chunks(_checked(reader, names)):
            arrays = [array_of([row[places[need.name]] for row in rows], need.type) for need in present]
            batch = pa.record_batch([*arrays, pa.nulls(len(rows))], [*(need.name for need in present), ""])
            yield batch.select(range(len(present)))


def _reader(text: Any, url: str) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)  # the default rejects a text of more than 128 KiB
    return csv.reader(text, strict=True, delimiter=delimiter_of(url))


def _checked(reader: Any, names: Sequence[str]) -> Iterator[list[str]]:
    """The rows with as many fields as the header; blank lines are no rows."""
    for row in reader:
        if row and len(row) != len(names):
            raise InputError(f"line {reader.line_num}: {len(row)} fields, the header names {len(names)}")
        if row:
            yield row


def _chunks(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    chunk: list[list[str]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += sum(map(len, row))
        if len(chunk) == BATCH_ROWS or size >= BATCH_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
