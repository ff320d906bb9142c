"""A partition, the unit of work, of retry and of resume; and the partitions of an input as columns.

A million partitions take some 300 MB as columns, where as many objects took 1.1 GB. An object is built when it is asked
for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from colophon.pipeline.inputs.jsonl.pieces import Piece
from colophon.pipeline.recipe.schema import DEFAULT_MAX_DOCUMENT_BYTES, InputFormat
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.table_rows import TableRows
from colophon.shards.record_table import PARTITIONS, PartitionTable

_SHARED = pa.dictionary(pa.int32(), pa.string())
"""Strings that partitions of one file, or all partitions, have in common."""
_PIECE = pa.struct([(name, pa.int64()) for name in ("number", "begin", "end", "content_begin", "content_end")])
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        *((name, _SHARED) for name in ("source", "url", "format", "identity", "text", "source_name")),
        *((name, pa.int32()) for name in ("first_row_group", "end_row_group")),
        *((name, pa.int64()) for name in ("first_row", "rows", "bytes", "max_document_bytes")),
        ("piece", _PIECE),
    ]
)
_AT_A_TIME = 1 << 13


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """A file, a range of its row groups or a piece of its lines, that one worker processes as a unit."""

    name: str
    source: str
    url: str
    format: InputFormat
    row_groups: tuple[int, int] | None
    """First and one past the last row group; None: no Parquet file."""
    first_row: int
    """The partition's first row in its file; ids generated for rows without one count from it. 0 of pieces, whose
    ids do not count rows."""
    rows: int | None
    """The number of documents; None where no footer states it."""
    bytes: int
    """Uncompressed bytes of the row groups, else the file's or the piece's size: roughly the cost of the work."""
    identity: str
    """A digest of the file's size, its time of change or the store's version, and a Parquet file's footer. A plan
    trusts it. `colophon verify --inputs` finds content that was edited with all of these restored."""
    text: str = "text"
    """The input's name for the text column: a JSON line without it is not a document, whatever columns are read."""
    max_document_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES
    """UTF-8 bytes of the longest text that is read."""
    source_name: str | None = None
    """The name of the source in the recipe."""
    piece: Piece | None = None
    """The part of a JSONL file; None: the whole file, or no JSONL file."""

    @property
    def extent(self) -> list[Any]:
        """The part of a fingerprint that is of the input, see `Partitions.extents`."""
        piece = None if self.piece is None else asdict(self.piece)
        return _extent([self.identity, self.row_groups, self.first_row], self.format, self.source, piece)

    @property
    def file_name(self) -> str:
        """The part of `name` that all partitions of the file have; ids of rows without one begin with it."""
        is_whole = self.row_groups is None and self.piece is None
        return self.name if is_whole else self.name.rpartition("-")[0]


class Partitions(TableRows[Partition]):
    """The partitions of an input."""

    @classmethod
    def of(cls, partitions: Iterable[Partition]) -> Partitions:
        """The table of some partitions."""
        rest = iter(partitions)
        blocks = []
        while block := list(islice(rest, _AT_A_TIME)):
            blocks.append(_table_of(block))
        return cls.joined([cls(block) for block in blocks])

    @classmethod
    def joined(cls, parts: Sequence[Partitions]) -> Partitions:
        """The partitions of all parts, in their order."""
        tables = [part.table for part in parts]
        return cls(pa.concat_tables([_SCHEMA.empty_table(), *tables]).unify_dictionaries().combine_chunks())

    def chosen(self, numbers: NumPyArray) -> Partitions:
        """The partitions with these numbers, in their order."""
        return Partitions(self.table.take(pa.array(numbers)))

    def without_sources(self, sources: Iterable[str]) -> Partitions:
        """The partitions of files with other sources than these."""
        is_left_out = pc.is_in(self.table.column("source").cast(pa.string()), pa.array(list(sources), pa.string()))
        return Partitions(self.table.filter(pc.invert(is_left_out)))

    @cached_property
    def names(self) -> pa.Array:
        """string [partitions]."""
        return _array(self.table.column("name"))

    @cached_property
    def sizes(self) -> NumPyArray:
        """int64 [partitions]: `Partition.bytes`."""
        return _array(self.table.column("bytes")).to_numpy()  # type: ignore[no-any-return]

    @property
    def formats(self) -> Counter[str]:
        """The number of partitions by the format of their file."""
        found = pc.value_counts(self.table.column("format").cast(pa.string()))
        return Counter({each["values"]: each["counts"] for each in found.to_pylist()})

    def uncut_lines(self, *, larger_than: int) -> Partitions:
        """The JSONL files of more bytes that are one partition each."""
        is_lines = pc.equal(self.table.column("format").cast(pa.string()), "jsonl")
        is_uncut = pc.and_(is_lines, pc.is_null(self.table.column("piece")))
        return Partitions(self.table.filter(pc.and_(is_uncut, pc.greater(self.table.column("bytes"), larger_than))))

    def files(self) -> Iterator[tuple[str, str, str]]:
        """The format, source and URL of each partition's file."""
        return self._values("format", "source", "url")

    def extents(self) -> Iterator[tuple[list[Any], str | None]]:
        """The part of each partition's fingerprint that is of the input, and the name of its source.

        The part is the identity of the content and its rows. Of JSON lines it also names the rule for ids, which was a
        different one before files were cut at lines; of a text file its path, which is the id.
        """
        names = ("format", "source", "identity", "first_row_group", "end_row_group", "first_row", "piece")
        for kind, source, identity, begin, end, first, piece, of in self._values(*names, "source_name"):
            rows = [identity, None if begin is None else (begin, end), first]
            yield _extent(rows, kind, source, piece), of

    def infos(self) -> PartitionTable:
        """The partitions as a manifest lists them."""
        return PartitionTable(self.table.select(PARTITIONS.names).cast(PARTITIONS))

    def _values(self, *names: str) -> Iterator[tuple[Any, ...]]:
        for batch in self.table.select(names).to_batches(max_chunksize=_AT_A_TIME):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def _row(self, values: dict[str, Any]) -> Partition:
        begin, end, piece = values.pop("first_row_group"), values.pop("end_row_group"), values.pop("piece")
        row_groups = None if begin is None else (begin, end)
        return Partition(**values, row_groups=row_groups, piece=None if piece is None else Piece(**piece))


def _extent(rows: list[Any], kind: str, source: str, piece: dict[str, int] | None) -> list[Any]:
    if kind == "text":
        return [*rows, source]  # the document's id
    if kind != "jsonl":
        return rows
    of_piece = [] if piece is None else [piece["number"], piece["content_begin"], piece["content_end"]]
    return [*rows, "ids by line", *of_piece]


def _table_of(partitions: Sequence[Partition]) -> pa.Table:
    arrays = []
    for field in _SCHEMA:
        if field.name in ("first_row_group", "end_row_group"):
            end = field.name == "end_row_group"
            values: list[Any] = [None if p.row_groups is None else p.row_groups[end] for p in partitions]
        elif field.name == "piece":
            values = [None if p.piece is None else asdict(p.piece) for p in partitions]
        else:
            values = [getattr(partition, field.name) for partition in partitions]
        is_shared = field.type == _SHARED
        array = pa.array(values, pa.string() if is_shared else field.type)
        arrays.append(array.dictionary_encode() if is_shared else array)
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _array(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array."""
    found = column.combine_chunks()
    return found if isinstance(found, pa.Array) else pa.concat_arrays(found.chunks)
