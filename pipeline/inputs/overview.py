"""A look at the input: its files, and the columns of the first rows with their types, nulls and examples.

Rows are read as they are in the file, without the rules of `inputs.readers`: this is for people and for proposals. It
is not built on `found_columns`, which reads a partition as a run does: that needs to know the text column, which is to
be found here, and gives Arrow's types without the values that show what a column means.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columnar.conversion import converted
from colophon.pipeline.inputs.columns import clean_names
from colophon.pipeline.inputs.compression import open_as, open_file
from colophon.pipeline.inputs.failures import input_errors
from colophon.pipeline.inputs.jsonl.lines import open_lines
from colophon.pipeline.inputs.jsonl.sample import members
from colophon.pipeline.inputs.mappings import WARC_COLUMNS
from colophon.pipeline.inputs.search.formats import delimiter_of
from colophon.pipeline.inputs.search.found import InputFile
from colophon.pipeline.recipe.schema import InputFormat

_ROWS = 500
_LONGEST_LINE = 16 << 20
_EXAMPLE_CHARACTERS = 60


@dataclass(frozen=True, kw_only=True)
class ColumnOverview:
    """A column in the first rows of a file."""

    name: str
    type: str
    """`string`, `int`, `float`, `bool`, `list`, `object`, `null`, or several: `int or string`."""
    known: float
    """The share of rows that have a value."""
    mean_bytes: float | None
    """Mean bytes of the strings; None for other types."""
    example: str
    """The beginning of the first value."""

    def as_dict(self) -> dict[str, Any]:
        """The column as a JSON value."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The columns of a file."""

    source: str
    format: InputFormat
    rows: int
    """The number of rows that were read."""
    columns: tuple[ColumnOverview, ...]
    values: dict[str, list[Any]]
    """By column, its values that are not null."""

    def column(self, name: str) -> ColumnOverview:
        """The column of this name. KeyError if there is none."""
        return {column.name: column for column in self.columns}[name]


def overview_of(file: InputFile) -> Overview:
    """Read up to 500 rows of a file.

    Raises:
        InputError: it cannot be read, or has no rows.
    """
    with input_errors():
        rows = [dict(members(row)) for row in islice(_rows(file), _ROWS)]
    if file.format == "warc":
        columns = tuple(
            ColumnOverview(name=n, type="string", known=1.0, mean_bytes=None, example="") for n in WARC_COLUMNS
        )
        return Overview(source=file.source, format="warc", rows=0, columns=columns, values={})
    if not rows:
        raise InputError("it has no rows")
    values = {name: [row[name] for row in rows if row.get(name) is not None] for row in rows for name in row}
    return Overview(
        source=file.source,
        format=file.format,
        rows=len(rows),
        columns=tuple(_column(name, known, rows=len(rows)) for name, known in values.items()),
        values=values,
    )


def _column(name: str, values: Sequence[Any], *, rows: int) -> ColumnOverview:
    types = sorted({_type_name(value) for value in values}) or ["null"]
    sizes = [len(value.encode("utf-8", "replace")) for value in values if isinstance(value, str)]
    example = "" if not values else str(values[0])[:_EXAMPLE_CHARACTERS]
    return ColumnOverview(
        name=name,
        type=" or ".join(types),
        known=round(len(values) / rows, 4),
        mean_bytes=round(sum(sizes) / len(sizes), 1) if types == ["string"] else None,
        example=example,
    )


def _type_name(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float", str: "string", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _rows(file: InputFile) -> Iterator[dict[str, Any]]:
    if file.format == "text":
        return _text_row(file)
    readers = {"parquet": _parquet_rows, "arrow": _arrow_rows, "csv": _csv_rows, "jsonl": _json_rows}
    read = readers.get(file.format)
    return iter(()) if read is None else read(file.url)


def _text_row(file: InputFile) -> Iterator[dict[str, Any]]:
    """The document of a text file, of a large one the beginning of its text."""
    with open_lines(file.url) as lines:
        text = lines.read(_LONGEST_LINE).decode("utf-8-sig", "replace")
    yield {"text": text, "id": file.source, "file_path": file.source}


def _parquet_rows(url: str) -> Iterator[dict[str, Any]]:
    with open_as(url, None) as handle, pq.ParquetFile(handle) as parquet:
        for batch in parquet.iter_batches(_ROWS, use_threads=False):
            yield from _named_rows(batch)


def _arrow_rows(url: str) -> Iterator[dict[str, Any]]:
    with open_as(url, None) as handle:
        try:
            reader = pa.ipc.open_file(handle)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            handle.seek(0)
            batches = iter(pa.ipc.open_stream(handle))
        for batch in batches:
            yield from _named_rows(batch.slice(0, _ROWS))


def _named_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    names = clean_names(batch.schema.names)
    columns = [_values(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def _values(array: pa.Array) -> list[Any]:
    try:
        return array.to_pylist()  # type: ignore[no-any-return]
    except Exception:  # one of many types of errors, for a date in the year 12000 or text that is not UTF-8
        return [_value(scalar) for scalar in array]


def _value(scalar: Any) -> Any:
    """A value as Python has it, or as text where Python has no such value."""
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.StructScalar):
        return {name: _value(inner) for name, inner in scalar.items()}
    if isinstance(scalar, pa.ListScalar):
        return [_value(inner) for inner in scalar.values]
    try:
        return scalar.as_py()
    except Exception:
        return converted(pa.repeat(scalar, 1), pa.string())[0][0].as_py()


def _csv_rows(url: str) -> Iterator[dict[str, Any]]:
    with open_file(url) as handle:
        text = io.TextIOWrapper(handle, encoding="utf-8-sig", errors="replace", newline="")
        for row in csv.DictReader(text, delimiter=delimiter_of(url)):
            yield {name: value or None for name, value in row.items() if isinstance(name, str)}


def _json_rows(url: str) -> Iterator[dict[str, Any]]:
    with open_lines(url) as lines:
        while line := lines.readline(_LONGEST_LINE):
            try:
                row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row
