"""Columns under FineWeb's names: which a stage needs, their types, and whether a file's columns can give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import DOCUMENT_FILE, DOCUMENT_PLACE
from colophon.pipeline.inputs.columnar.conversion import can_convert, is_text, plain_type, values_of
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

SOURCE_NAME = "source_name"
"""The column that each document of a named source has: the source's `name`. It hides a file's own column."""
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
    """Its number, from 0, among the file's columns of that whole name; None: a name may be nested, and the file must
    not have two."""
    read_as: pa.DataType | None = None
    """A type other than FineWeb's."""
    nested_as_json: bool = True
    """Whether lists and objects of JSON are read as JSON if `read_as` is string; else they are null, and counted."""
    key: str | None = None
    """The recipe's key that names the column: it is an error if no file has it."""
    in_sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    """By the name of a source, the column's name in its files, where that is not `in_input`."""
    optional_in: frozenset[str] = frozenset()
    """The names of the sources that may lack the column in all of their files, if another source has it: it is null."""

    @property
    def type(self) -> pa.DataType | None:
        """The type in which the column is read; None: the type it has in the file."""
        return self.read_as or FINEWEB_TYPES.get(self.name)

    def in_source(self, source: str | None) -> ColumnNeed:
        """The need as it is for the files of one source."""
        return replace(
            self,
            in_input=self.in_sources.get(source or "", self.in_input),
            required=self.required and source not in self.optional_in,
            in_sources={},
        )

    @property
    def is_place(self) -> bool:
        """Whether the column is one of `DOCUMENT_PLACES`, and not one of the file's."""
        return self.name in DOCUMENT_PLACES

    def is_name_of(self, source: str | None) -> bool:
        """Whether the column is the name of the source, and not one of its files'."""
        return source is not None and self.in_input == SOURCE_NAME and self.occurrence is None


PLACE = ColumnNeed("byte of the line", "", required=False, read_as=pa.int64())
"""A column that readers of lines add: the byte of the decompressed file at which a document's line begins."""

DOCUMENT_PLACES = {DOCUMENT_FILE: pa.string(), DOCUMENT_PLACE: pa.int64()}
"""The columns that readers make of where a document is, whatever columns the file has."""


def clean_names(names: Sequence[str]) -> list[str]:
    """Column names without a byte order mark: a CSV file that another tool has converted keeps it in its first name."""
    return [name.removeprefix(_BYTE_ORDER_MARK) for name in names]


def paths_of(fields: Sequence[pa.Field], name: str) -> list[tuple[int, ...]]:
    """The places of the columns with this name, each as its place among `fields` and in the structs inside.

    A column of the whole name wins. Otherwise the part before a dot is the name of a struct, and the rest is looked up
    in it by the same rule: `meta.url` is the field `url` of the struct `meta`, unless a column is named `meta.url`.
    """
    names = clean_names([field.name for field in fields])
    whole: list[tuple[int, ...]] = [(place,) for place, field_name in enumerate(names) if field_name == name]
    for head, rest in () if whole else splits(name):
        for place in (place for place, field_name in enumerate(names) if field_name == head):
            kind = plain_type(fields[place].type)
            inside = paths_of(list(kind), rest) if pa.types.is_struct(kind) else []
            whole += [(place, *path) for path in inside]
        if whole:
            break
    return whole


@lru_cache(1024)
def splits(name: str) -> tuple[tuple[str, str], ...]:
    """A name cut at each of its dots, the longest first part first: `a.b.c` gives (a.b, c), (a, b.c)."""
    parts = name.split(".")
    return tuple((".".join(parts[:n]), ".".join(parts[n:])) for n in range(len(parts) - 1, 0, -1))


def column_names(fields: Iterable[pa.Field]) -> list[str]:
    """The names of all columns, each struct followed by its fields: `meta`, `meta.url`."""
    names: list[str] = []
    for column in fields:
        kind = plain_type(column.type)
        (name,) = clean_names([column.name])
        names += [name, *(f"{name}.{inner}" for inner in (column_names(kind) if pa.types.is_struct(kind) else ()))]
    return names


def positions(schema: pa.Schema, needs: Sequence[ColumnNeed]) -> dict[str, tuple[int, ...]]:
    """The place in a file, see `paths_of`, of each needed column that the file has, by FineWeb name.

    In a file with the columns text and key, `ColumnNeed("id", "key")` gives `{"id": (1,)}`.
    """
    fields = list(schema)
    found: dict[str, tuple[int, ...]] = {}
    for need in needs:
        paths = paths_of(fields, need.in_input)
        if need.occurrence is not None:
            paths = [path for path in paths if len(path) == 1]
            del paths[: need.occurrence]
        if paths:
            found[need.name] = paths[0]
    return found


def named_columns(batch: pa.RecordBatch, places: Mapping[str, tuple[int, ...]]) -> pa.RecordBatch:
    """The columns of `batch` at these places under these names; without any, its rows remain."""
    if not places:
        return batch.select([])
    arrays = [_at(batch.column(path[0]), path[1:]) for path in places.values()]
    return pa.record_batch(arrays, list(places))


def _at(array: pa.Array, path: Sequence[int]) -> pa.Array:
    """A field inside of structs; null where a struct is."""
    for place in path:
        array = pc.struct_field(values_of(array), place)
    return array


def column_problem(schema: pa.Schema, needs: Sequence[ColumnNeed]) -> str | None:
    """Why a file with this schema cannot give the needed columns, as one line; None if it can.

    A required column is missing, a needed name is that of two columns, or a column's type cannot be converted.
    """
    fields = list(schema)
    for need in (need for need in needs if need.occurrence is None):
        paths = paths_of(fields, need.in_input)
        if len(paths) > 1:
            return f"{'two' if len(paths) == 2 else len(paths)} columns {need.in_input!r}"
        if not paths:
            if need.required:
                found = listed(_near(fields, need.in_input), most=SHOWN_COLUMNS)
                return f"no column {need.in_input!r}; columns: {found}"
            continue
        column_type = _type_at(fields, paths[0])
        if not (is_text(column_type) if need.name == "text" else can_convert(column_type, need.type)):
            return f"column {need.in_input!r} is {_cut(str(column_type))}, not {need.type}{_remedy(column_type, need)}"
    return None


def _near(fields: Sequence[pa.Field], name: str) -> list[str]:
    """The names of columns to show where one is missing: those in its struct, if a part of the name is that of one."""
    names = column_names(fields)
    inside = [other for head, _ in splits(name) for other in names if other.startswith(f"{head}.")]
    return inside or clean_names([field.name for field in fields])


def _type_at(fields: Sequence[pa.Field], path: Sequence[int]) -> pa.DataType:
    kind = fields[path[0]].type
    for place in path[1:]:
        kind = plain_type(kind).field(place).type
    return kind


def _remedy(column_type: pa.DataType, need: ColumnNeed) -> str:
    """The end of an error that names a remedy: `; name a field of it, such as meta.url`; empty if none is known."""
    kind = plain_type(column_type)
    if pa.types.is_struct(kind):
        return f"; name a field of it, such as {need.in_input}.{kind.field(0).name}" if kind.num_fields else ""
    can_join = need.key is not None and need.read_as == pa.string() and can_convert(column_type, pa.list_(pa.string()))
    return f'; {need.key}: set separator = ", " to join its values' if can_join else ""


def _cut(type_name: str) -> str:
    return type_name if len(type_name) <= _SHOWN_TYPE else f"{type_name[:_SHOWN_TYPE]}…"
