"""Columns under FineWeb's names: which a stage needs, their types, and whether a file's columns can give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from colophon.pipeline.inputs.columnar.conversion import can_convert, is_text
from colophon.shards.common.errors import listed

BATCH_ROWS = 1024
BATCH_BYTES = 4 << 20
"""The most rows and, about, the most bytes of a batch; a single row may be larger."""

FINEWEB_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("text", "id", "dump", "url", "date", "file_path", "language"), pa.string()),
    "language_score": pa.float64(),
    "token_count": pa.int64(),
    "score": pa.float64(),
    "int_score": pa.int64(),
}
"""The columns of FineWeb and FineWeb-Edu. These names always mean the input's columns."""

_BYTE_ORDER_MARK = "\ufeff"
SHOWN_COLUMNS = 20
"""The most names of columns or keys in an error."""
_SHOWN_TYPE = 60


@dataclass(frozen=True)
class ColumnNeed:
    """A column that a stage needs: its FineWeb name, its name in the input, and whether it is required."""

    name: str
    in_input: str
    required: bool = True
    occurrence: int | None = None
    """Its number, from 0, among the file's columns of that name; None: the file must not have two."""
    read_as: pa.DataType | None = None
    """A type other than FineWeb's; lists and objects of JSON are then read as JSON if it is string."""

    @property
    def type(self) -> pa.DataType | None:
        """The type in which the column is read; None: the type it has in the file."""
        return self.read_as or FINEWEB_TYPES.get(self.name)


def clean_names(names: Sequence[str]) -> list[str]:
    """Column names without a byte order mark: a CSV file that another tool has converted keeps it in its first name."""
    return [name.removeprefix(_BYTE_ORDER_MARK) for name in names]


def positions(names: Sequence[str], needs: Sequence[ColumnNeed]) -> dict[str, int]:
    """The place among a file's column names of each needed column that the file has, by FineWeb name.

    `positions(["text", "key"], (ColumnNeed("id", "key"), ColumnNeed("url", "url")))` is `{"id": 1}`.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(clean_names(names)):
        places.setdefault(name, []).append(place)
    found = {need.name: places.get(need.in_input, [])[need.occurrence or 0 :] for need in needs}
    return {name: rest[0] for name, rest in found.items() if rest}


def named_columns(batch: pa.RecordBatch, places: Mapping[str, int]) -> pa.RecordBatch:
    """The columns of `batch` at these places under these names; without any, its rows remain."""
    chosen = batch.select(list(places.values()))
    return chosen.rename_columns(list(places)) if places else chosen


def column_problem(schema: pa.Schema, needs: Sequence[ColumnNeed]) -> str | None:
    """Why a file with this schema cannot give the needed columns, as one line; None if it can.

    A required column is missing, a needed name is that of two columns, or a column's type cannot be converted.
    """
    names = clean_names(schema.names)
    for need in (need for need in needs if need.occurrence is None):
        count = names.count(need.in_input)
        if count > 1:
            return f"{'two' if count == 2 else count} columns {need.in_input!r}"
        if not count:
            if need.required:
                return f"no column {need.in_input!r}; columns: {listed(names, most=SHOWN_COLUMNS)}"
            continue
        column_type = schema.field(names.index(need.in_input)).type
        if not (is_text(column_type) if need.name == "text" else can_convert(column_type, need.type)):
            return f"column {need.in_input!r} is {_cut(str(column_type))}, not {need.type}"
    return None


def _cut(type_name: str) -> str:
    return type_name if len(type_name) <= _SHOWN_TYPE else f"{type_name[:_SHOWN_TYPE]}…"
