"""Parquet files that hold a run's state: segments of commit records, and the tables of the manifest.

Each is read whole, and only if its bytes have the sha256 that its name or the manifest states. So any damage is one
line with the file's path and what to do, as with the JSON files of `state_files`.
"""

from __future__ import annotations

from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.shards.common.errors import DamagedFileError, one_line


def table_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def parse_table(content: bytes, *, schema: pa.Schema, digest: str, where: str, remedy: str) -> pa.Table:
    """The table in the content of a Parquet file.

    Args:
        content: the bytes of the file.
        schema: the columns that it must have.
        digest: the first digits of the sha256 that it must have.
        where: its path in errors.
        remedy: what to do about a damaged one, a sentence.

    Raises:
        DamagedFileError: the bytes differ from those that were written, or a different version wrote them.
    """
    if not sha256(content).hexdigest().startswith(digest):
        raise DamagedFileError(f"{where}: damaged: its bytes differ from those that were written (sha256). {remedy}")
    try:
        table = pq.read_table(pa.BufferReader(content), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamagedFileError(f"{where}: damaged: {one_line(error)}. {remedy}") from None
    if not table.schema.equals(schema):
        raise DamagedFileError(f"{where}: its columns are those of a different version of Colophon. {remedy}")
    return table
