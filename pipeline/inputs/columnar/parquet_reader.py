"""Parquet row groups as record batches, in memory that does not depend on the size of the row groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columnar.conversion import plain_type
from colophon.pipeline.inputs.columns import BATCH_ROWS, ColumnNeed, column_problem, named_columns, positions
from colophon.pipeline.inputs.partitions import Partition
from colophon.pipeline.storage.stores import filesystem_of

_READ_BYTES = 2 << 20
_COLUMN_BUFFER_BYTES = 1 << 20
_REMOTE_BLOCK_BYTES = 4 << 20
_REMOTE_BLOCKS = 8


def parquet_schema(url: str) -> pa.Schema:
    """The file's schema."""
    with _open_parquet(url) as parquet:
        return parquet.schema_arrow


def parquet_batches(partition: Partition, needs: Sequence[ColumnNeed]) -> Iterator[pa.RecordBatch]:
    """The needed columns of a partition's row groups, under their FineWeb names and in the file's types."""
    row_groups = range(*(partition.row_groups or (0, 0)))
    with _open_parquet(partition.url) as parquet:
        if problem := column_problem(parquet.schema_arrow, needs):
            raise InputError(problem)
        places = positions(parquet.schema_arrow, needs).values()
        in_file = list(dict.fromkeys(_dotted(parquet.schema_arrow, path) for path in places))
        batch_rows = _rows_per_batch(parquet.metadata, row_groups)
        for batch in parquet.iter_batches(batch_rows, row_groups=row_groups, columns=in_file, use_threads=False):
            # A struct has its needed fields alone here, and a flat column `a.b` brings along the struct `a` that has a
            # field `b`: names are looked up again.
            yield named_columns(batch, positions(batch.schema, needs))


def _dotted(schema: pa.Schema, path: Sequence[int]) -> str:
    """The name by which pyarrow reads a column, or a field in a struct, alone."""
    field = schema.field(path[0])
    names = [field.name]
    for place in path[1:]:
        field = plain_type(field.type).field(place)
        names.append(field.name)
    return ".".join(names)


@contextmanager
def _open_parquet(url: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file for reading from front to back.

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
            source, page_checksum_verification=True, pre_buffer=False, buffer_size=_COLUMN_BUFFER_BYTES
        )
        yield stack.enter_context(parquet)


def _rows_per_batch(footer: pq.FileMetaData, row_groups: range) -> int:
    """At most `BATCH_ROWS`, fewer for long rows: 2 MiB / 10 KiB a row = 204."""
    groups = [footer.row_group(i) for i in row_groups]
    row_bytes = max((g.total_byte_size / g.num_rows for g in groups if g.num_rows), default=0)
    return max(1, min(BATCH_ROWS, int(_READ_BYTES / max(row_bytes, 1))))
