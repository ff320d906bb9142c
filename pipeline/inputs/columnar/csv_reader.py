"""CSV files, with commas or tabs (`.tsv`), plain or compressed, as batches of the needed columns.

The csv module reads them, in its strict mode: a quote that is not closed, or text after a closing quote, is an error.
Without it, such a quote joins rows in silence. Arrow's reader has a limit on the length of a row. Line ends inside
quotes stay as they are.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columnar.conversion import array_of
from colophon.pipeline.inputs.columns import BATCH_BYTES, BATCH_ROWS, ColumnNeed, clean_names, column_problem, positions
from colophon.pipeline.inputs.jsonl.lines import open_lines
from colophon.pipeline.inputs.limits import (
    TOO_LARGE,
    is_above,
    line_limit,
    line_too_large,
    text_too_large,
    utf8_bytes,
)
from colophon.pipeline.inputs.search.formats import delimiter_of
from colophon.shards.common.text_encoding import not_utf8

if TYPE_CHECKING:  # planning imports this module
    from colophon.pipeline.inputs.partition_table import Partition
    from colophon.pipeline.inputs.problems import Problems

_HEADER_BYTES = 4 << 20
_MOST_COLUMNS = 100_000
_SKIPPED_CHARACTERS = 1 << 20


def csv_schema(url: str) -> pa.Schema:
    """The columns that the first row names, all strings.

    Raises:
        InputError: the file has no first row, none in its first 4 MiB, or one of more than 100,000 columns.
    """
    with _as_input_errors(), open_lines(url) as file:
        start = file.read(_HEADER_BYTES)
        # The last character of `start` may be cut.
        text = io.StringIO(start.decode("utf-8-sig", errors="ignore" if len(start) == _HEADER_BYTES else "strict"))
    names = next(_reader(text, url), None)
    if not names:
        raise InputError("no header: the first line names no column")
    if len(start) == _HEADER_BYTES and not text.read(1):
        raise InputError("its header is too long: more than 4 MiB")
    if len(names) > _MOST_COLUMNS:
        raise InputError(f"its header is too long: {len(names):,} columns; the most is {_MOST_COLUMNS:,}")
    return pa.schema([(name, pa.string()) for name in names])


def csv_batches(partition: Partition, needs: Sequence[ColumnNeed], *, problems: Problems) -> Iterator[pa.RecordBatch]:
    """The needed columns that the file has, under their FineWeb names and in their types.

    Args:
        partition: a whole file.
        needs: the columns.
        problems: gets the rows that are too large.

    Raises:
        InputError: the header lacks a needed column, a row has more or fewer fields than the header, or the file is not
            UTF-8.
    """
    with (
        _as_input_errors(),
        open_lines(partition.url) as file,
        io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text,
    ):
        rows = _rows(text, partition, problems)
        names = next(rows, [])
        schema = pa.schema([(name, pa.string()) for name in names])
        if problem := column_problem(schema, needs):
            raise InputError(problem)
        places = {name: place for name, (place,) in positions(schema, needs).items()}
        present = [need for need in needs if need.name in places]
        for chunk in _chunks(rows):
            arrays = [array_of([row[places[need.name]] for row in chunk], need.type) for need in present]
            batch = pa.record_batch([*arrays, pa.nulls(len(chunk))], [*(need.name for need in present), ""])
            chunk.clear()
            del arrays
            yield batch.select(range(len(present)))


@contextmanager
def _as_input_errors() -> Iterator[None]:
    """Raise InputError in place of the error of a decoder."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(not_utf8(error)) from None


def _reader(lines: Iterable[str], url: str) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)  # the default rejects a text of more than 128 KiB
    return csv.reader(lines, strict=True, delimiter=delimiter_of(url))


def _rows(text: io.TextIOWrapper, partition: Partition, problems: Problems) -> Iterator[list[str]]:
    """The header, then the rows with as many fields; blank lines are no rows, and rows too large are reported.

    Whether a row is too large depends on the row alone, not on the columns that a pass reads.
    """
    limit = partition.max_document_bytes
    lines = _Lines(text, most=line_limit(limit))
    names: list[str] | None = None
    text_place = None
    while not lines.has_ended:
        try:
            for row in _reader(lines.of_rows(), partition.url):
                first_line = lines.end_row()
                if names is None:
                    names = clean_names(row)
                    text_place = names.index(partition.text) if partition.text in names else None
                    yield row
                elif row and len(row) != len(names):
                    raise InputError(f"line {lines.number}: {len(row)} fields, the header names {len(names)}")
                elif row and text_place is not None and is_above(row[text_place], limit):
                    reason = text_too_large(utf8_bytes(row[text_place]), limit, document=_document(row, names))
                    problems.add(first_line, reason, kind=TOO_LARGE)
                elif row:
                    yield row
        except _RowTooLongError:
            first_line = lines.end_row()
            if names is None:
                raise InputError("its header is too long") from None
            what = f"a row of lines {first_line:,} to {lines.number:,}, {lines.skipped:,} characters"
            problems.add(first_line, line_too_large(what, limit), kind=TOO_LARGE)


def _document(row: Sequence[str], names: Sequence[str]) -> str | None:
    return row[names.index("id")] if "id" in names else None


class _RowTooLongError(Exception):
    """A row has more characters than a row may have; the rest of it was skipped."""


class _Lines:
    """The lines of a file, as rows of the csv module; a row that is too long is not held in memory."""

    def __init__(self, text: io.TextIOWrapper, *, most: int) -> None:
        self._text, self._most = text, most
        self.number = 0
        """The last line, from 1."""
        self.has_ended = False
        self.skipped = 0
        """The characters of the last row that was too long."""
        self._row_begin, self._size = 1, 0

    def of_rows(self) -> Iterator[str]:
        """The next lines, until the file ends.

        Raises:
            _RowTooLongError: the lines since `end_row` have more than `most` characters.
        """
        for line in iter(partial(self._text.readline, self._most + 1), ""):
            self.number += 1
            self._size += len(line)
            if self._size > self._most:
                self._skip(line)
                raise _RowTooLongError
            yield line
        self.has_ended = True

    def end_row(self) -> int:
        """Begin the next row; return the first line of the one that has ended."""
        begin, self._row_begin, self._size = self._row_begin, self.number + 1, 0
        return begin

    def _skip(self, line: str) -> None:
        """Read to the end of the row: the first line end that is not in quotes, which are doubled inside of quotes."""
        is_quoted = self.number > self._row_begin  # a row has a second line only within quotes
        self.skipped = self._size
        while line:
            is_quoted ^= bool(line.count('"') % 2)
            if line.endswith(("\n", "\r")) and not is_quoted:
                return
            is_new = line.endswith(("\n", "\r"))
            line = self._text.readline(_SKIPPED_CHARACTERS)
            self.number += is_new and bool(line)
            self.skipped += len(line)


def _chunks(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    chunk: list[list[str]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += sum(map(len, row))
        del row
        if len(chunk) == BATCH_ROWS or size >= BATCH_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
