"""A partition, the unit of work, of retry and of resume; and the partitions of an input as columns.

A million partitions take some 300 MB as columns, where as many objects took 1.1 GB. An object is built when it is asked
for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
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
    def file_name(self) -> str:
        """The part of `name` that all partitions of the file have; ids of rows without one begin with it."""
        is_whole = self.row_groups is None and self.piece is None
        return self.name if is_whole else self.name.rpartition("-")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedFile:
    """The partitions of one file: the values that they have in common, and the columns in which they differ.

    See `Partition` for the fields. A file of 10,000 row groups is one object instead of 10,000.
    """

    source: str
    url: str
    format: InputFormat
    identity: str
    text: str
    max_document_bytes: int
    source_name: str | None
    names: Sequence[str]
    rows: Sequence[int | None]
    bytes: Sequence[int]
    row_groups: Sequence[tuple[int, int] | None]
    first_rows: Sequence[int]
    pieces: Sequence[Piece | None]

    @classmethod
    def of(cls, partition: Partition) -> PlannedFile:
        """A file that has one partition."""
        return cls(
            source=partition.source,
            url=partition.url,
            format=partition.format,
            identity=partition.identity,
            text=partition.text,
            max_document_bytes=partition.max_document_bytes,
            source_name=partition.source_name,
            names=(partition.name,),
            rows=(partition.rows,),
            bytes=(partition.bytes,),
            row_groups=(partition.row_groups,),
            first_rows=(partition.first_row,),
            pieces=(partition.piece,),
        )


class Partitions(TableRows[Partition]):
    """The partitions of an input."""

    @classmethod
    def of(cls, partitions: Iterable[Partition]) -> Partitions:
        """The table of some partitions."""
        return cls.of_files(map(PlannedFile.of, partitions))

    @classmethod
    def of_files(cls, files: Iterable[PlannedFile]) -> Partitions:
        """The table of the partitions of some files."""
        rest = iter(files)
        blocks = iter(lambda: list(islice(rest, _AT_A_TIME)), [])
        return cls.joined([cls(_table_of(block)) for block in blocks])

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

    def blocks(self) -> Iterator[Partitions]:
        """The same partitions, some thousand at a time."""
        return (Partitions(self.table.slice(start, _AT_A_TIME)) for start in range(0, len(self), _AT_A_TIME))

    @property
    def extents(self) -> pa.ChunkedArray:
        """string [partitions]: the part of each partition's fingerprint that is of the input, a JSON list.

        It has the identity of the content and its rows. Of JSON lines it also names the rule for ids, which was a
        different one before files were cut at lines; of a text file its path, which is the id.
        """
        identity, kinds = (self.table.column(name).cast(pa.string()) for name in ("identity", "format"))
        first_group, end_group, first_row, piece = map(
            self.table.column, ("first_row_group", "end_row_group", "first_row", "piece")
        )
        groups = pc.fill_null(joined_texts("[", first_group, ", ", end_group, "]"), "null")
        bounds = [pc.struct_field(piece, name) for name in ("number", "content_begin", "content_end")]
        of_piece = pc.fill_null(joined_texts(*(part for bound in bounds for part in (", ", bound))), "")
        of_lines = joined_texts(', "ids by line"', of_piece)
        rest = pc.if_else(pc.equal(kinds, "jsonl"), of_lines, "")
        if pc.any(pc.equal(kinds, "text")).as_py():
            paths = [json.dumps(source) for source in self.table.column("source").to_pylist()]
            rest = pc.if_else(pc.equal(kinds, "text"), joined_texts(", ", pa.array(paths, pa.string())), rest)
        return joined_texts('["', identity, '", ', groups, ", ", first_row, rest, "]")

    @property
    def source_names(self) -> pa.ChunkedArray:
        """string [partitions]: `Partition.source_name`."""
        return self.table.column("source_name").cast(pa.string())

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


def joined_texts(*parts: str | pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts and numbers of each row, one after the other; null where one of them is."""
    return pc.binary_join_element_wise(
        *(part if isinstance(part, str) else part.cast(pa.string()) for part in parts), ""
    )


def _table_of(files: Sequence[PlannedFile]) -> pa.Table:
    counts = [len(file.names) for file in files]
    file_of = pa.array(np.repeat(np.arange(len(files), dtype=np.int32), counts))

    def shared(name: str) -> pa.Array:
        return pa.array([getattr(file, name) for file in files], pa.string()).dictionary_encode().take(file_of)

    def joined(name: str) -> list[Any]:
        return [value for file in files for value in getattr(file, name)]

    groups, pieces = joined("row_groups"), joined("pieces")
    arrays = {
        "name": joined("names"),
        **{name: shared(name) for name in ("source", "url", "format", "identity", "text", "source_name")},
        "first_row_group": [None if group is None else group[0] for group in groups],
        "end_row_group": [None if group is None else group[1] for group in groups],
        "first_row": joined("first_rows"),
        "rows": joined("rows"),
        "bytes": joined("bytes"),
        "max_document_bytes": np.repeat(np.array([file.max_document_bytes for file in files], np.int64), counts),
        "piece": [None if piece is None else asdict(piece) for piece in pieces],
    }
    return pa.table(arrays, schema=_SCHEMA)


def _array(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array."""
    found = column.combine_chunks()
    return found if isinstance(found, pa.Array) else pa.concat_arrays(found.chunks)
