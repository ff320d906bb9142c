"""Token files in an object store: the lengths of all documents in memory, the ids of a document by range."""

from __future__ import annotations

from typing import Any

import numpy as np

from colophon.shards.arrow_files import list_chunks
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.records import Record
from colophon.shards.stores.objects import StoredObject
from colophon.shards.stores.places import StorePath
from colophon.shards.stores.sparse import sparse_table


class StoredValues:
    """The values of a list column's chunk, read when a slice is asked for; a request each."""

    def __init__(self, stored: StoredObject, *, at: int, count: int, dtype: np.dtype[Any]) -> None:
        """`count` values of type `dtype` from the offset `at` of an object."""
        self._stored, self._at, self._count, self.dtype = stored, at, count, dtype

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, values: slice, /) -> NumPyArray:
        """The values of a slice without a step."""
        start, stop, _ = values.indices(self._count)
        size = self.dtype.itemsize
        content = self._stored.read(self._at + start * size, self._at + stop * size) if stop > start else b""
        return np.frombuffer(content, self.dtype)


def stored_lists(path: StorePath, record: Record, *, column: str) -> tuple[NumPyArray, list[StoredValues]]:
    """A list column of an object as `arrow_files.list_chunks` gives that of a table: offsets, and values by chunk.

    Raises:
        ShardError: the object is missing, damaged, differs from its record, or lacks the column.
        StoreReadError: the store fails.
    """
    stored = StoredObject(path, num_bytes=record.bytes)
    table, values_at = sparse_table(stored, absent=column)
    lists = table.column(column)
    offsets, values = list_chunks(lists)
    first = [int(chunk.offsets[0].as_py()) if len(chunk) else 0 for chunk in lists.chunks]
    found = [
        StoredValues(stored, at=at + skipped * part.dtype.itemsize, count=len(part), dtype=part.dtype)
        for at, skipped, part in zip(values_at, first, values, strict=False)
    ]
    return offsets, found
