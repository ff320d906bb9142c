"""Parquet row groups as record batches, in memory that does not depend on the size of the row groups."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columnar.conversion import plain_type
from colophon.pipeline.inputs.columnar.footers import footer_of
from colophon.pipeline.inputs.columnar.parquet_pages import DECODED_BYTES, most_row_bytes
from colophon.pipeline.inputs.columns import (
    BATCH_BYTES,
    BATCH_ROWS,
    ColumnNeed,
    column_problem,
    named_columns,
    positions,
)
from colophon.pipeline.inputs.partition_table import Partition
from colophon.shards.stores.filesystems import filesystem_of

_READ_BYTES = 2 << 20
_COLUMN_BUFFER_BYTES = 1 << 20
_REMOTE_BLOCK_BYTES = 4 << 20
_REMOTE_BLOCKS = 8
_CHECKED_BYTES = 24 << 20
"""Compressed bytes whose pages are checked before they are read: of a store, they are then read from the cache."""


def parquet_schema(url: str) -> pa.Schema:
    """The file's schema."""
    return footer_of(url).metadata.schema.to_arrow_schema()


def parquet_batches(partition: Partition, needs: Sequence[ColumnNeed]) -> Iterator[pa.RecordBatch]:
    """The needed columns of a partition's row groups, under their FineWeb names and in the file's types.

    About 64 MiB or one row are decoded at once, beside the pages that they are in.

    Raises:
        InputError: the file lacks a needed column.
        TooLargeError: see `parquet_pages.most_row_bytes`.
    """
    row_groups = range(*(partition.row_groups or (0, 0)))
    with _open_parquet(partition.url, footer_of(partition.url).metadata) as (parquet, file):
        if problem := column_problem(parquet.schema_arrow, needs):
            raise InputError(problem)
        places = positions(parquet.schema_arrow, needs).values()
        in_file = list(dict.fromkeys(_dotted(parquet.schema_arrow, path) for path in places))
        batch_rows = _rows_per_batch(parquet.metadata, row_groups)
        pages = _Pages(file, parquet, in_file, max_document_bytes=partition.max_document_bytes)
        for groups, most_rows in _runs(pages, row_groups, batch_rows):
            read = parquet.iter_batches(most_rows, row_groups=groups, columns=in_file, use_threads=False)
            for batch in read if most_rows == batch_rows else _joined(read, batch_rows):
                # A struct has its needed fields alone here, and a flat column `a.b` brings along the struct `a` that
                # has a field `b`: names are looked up again.
                yield named_columns(batch, positions(batch.schema, needs))


def _dotted(schema: pa.Schema, path: Sequence[int]) -> str:
    """The name by which pyarrow reads a column, or a field in a struct, alone."""
    field = schema.field(path[0])
    names = [field.name]
    for place in path[1:]:
        field = plain_type(field.type).field(place)
        names.append(field.name)
    return ".".join(names)


def _joined(batches: Iterator[pa.RecordBatch], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The batches joined to about `batch_rows` rows or `BATCH_BYTES`; one that is larger stays alone."""
    parts: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        parts.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        del batch
        if rows >= batch_rows or size >= BATCH_BYTES:
            yield from _join(parts)
            rows = size = 0
    yield from _join(parts)


def _join(parts: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """The rows of the batches in one; the list is emptied."""
    joined = list(parts) if len(parts) < 2 else pa.Table.from_batches(parts).combine_chunks().to_batches()
    parts.clear()
    return joined


def _runs(pages: _Pages, row_groups: range, batch_rows: int) -> Iterator[tuple[list[int], int]]:
    """Consecutive row groups that are read with one number of rows a batch, and the number: `batch_rows` at most."""
    run: list[int] = []
    run_rows = size = 0
    for group in row_groups:
        group_bytes = pages.packed_bytes(group)
        rows = min(batch_rows, pages.most_rows(group, all_pages=pages.is_local or group_bytes <= _CHECKED_BYTES))
        if run and (rows != run_rows or size + group_bytes > _CHECKED_BYTES):
            yield run, run_rows
            run, size = [], 0
        run.append(group)
        run_rows, size = rows, size + group_bytes
    if run:
        yield run, run_rows


class _Pages:
    """The pages of the needed columns of a file."""

    def __init__(self, file: Any, parquet: pq.ParquetFile, columns: Sequence[str], *, max_document_bytes: int) -> None:
        footer = parquet.metadata
        self._file, self._footer, self._limit = file, footer, max_document_bytes
        paths = [f"{footer.schema.column(number).path}." for number in range(footer.num_columns)]
        begins = tuple(f"{column}." for column in columns)
        self._columns = [number for number, path in enumerate(paths) if path.startswith(begins)]
        # Arrow decodes a column that it reads as a dictionary when its slices are converted.
        self._encoded = {field.name for field in parquet.schema_arrow if pa.types.is_dictionary(field.type)}
        self.is_local = isinstance(file, io.BufferedReader)

    def _chunks(self, group: int) -> list[pq.ColumnChunkMetaData]:
        row_group = self._footer.row_group(group)
        return [row_group.column(number) for number in self._columns if number < row_group.num_columns]

    def packed_bytes(self, group: int) -> int:
        return sum(max(chunk.total_compressed_size, 0) for chunk in self._chunks(group))

    def most_rows(self, group: int, *, all_pages: bool) -> int:
        """The rows of a row group that decode to at most `DECODED_BYTES`, one at least."""
        row_bytes = 0.0
        for chunk in self._chunks(group):
            size = most_row_bytes(self._file, chunk, max_document_bytes=self._limit, all_pages=all_pages)
            row_bytes += 0 if chunk.path_in_schema in self._encoded else size
        return max(1, int(DECODED_BYTES / max(row_bytes, 1)))


@contextmanager
def _open_parquet(url: str, metadata: pq.FileMetaData) -> Iterator[tuple[pq.ParquetFile, Any]]:
    """Open a Parquet file with this footer for reading from front to back, and as a file for reading at any place.

    pyarrow's `pre_buffer` would hold all columns of a partition, and reading without a buffer holds whole column
    chunks: 0.8 GB for a row group of 2 GB, in twice the time.
    """
    with ExitStack() as stack:
        source: Any = url
        if "://" in url:
            filesystem, path = filesystem_of(url)
            # Reads alternate between the columns of a row group: a cache of one place would fetch blocks repeatedly.
            is_remote = not isinstance(filesystem, LocalFileSystem | MemoryFileSystem)
            caching = {"cache_type": "blockcache", "cache_options": {"maxblocks": _REMOTE_BLOCKS}} if is_remote else {}
            source = stack.enter_context(filesystem.open(path, "rb", block_size=_REMOTE_BLOCK_BYTES, **caching))
        # Without checksum verification pyarrow may return a damaged page as text.
        parquet = pq.ParquetFile(
            source,
            metadata=metadata,
            page_checksum_verification=True,
            pre_buffer=False,
            buffer_size=_COLUMN_BUFFER_BYTES,
        )
        stack.enter_context(parquet)
        yield parquet, stack.enter_context(Path(url).open("rb")) if source is url else source


def _rows_per_batch(footer: pq.FileMetaData, row_groups: range) -> int:
    """At most `BATCH_ROWS`, fewer for long rows: 2 MiB / 10 KiB a row = 204."""
    groups = [footer.row_group(i) for i in row_groups]
    row_bytes = max((g.total_byte_size / g.num_rows for g in groups if g.num_rows), default=0)
    return max(1, min(BATCH_ROWS, int(_READ_BYTES / max(row_bytes, 1))))
