"""Arrow files in an object store, opened without the values of one column: the ids, which are nearly all of a file.

The rest of the file is copied to its place in a mapping of anonymous memory as large as the file, of which the system
allocates the pages that are written. So the reader of local files checks and reads it: there is no second one.
Cost: the request that opens the object, and two or three for the rest; a small file takes one.
"""

from __future__ import annotations

import mmap
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.types as kinds

from colophon.shards.arrow_bounds import batches, buffers, check_bounds, footer_start
from colophon.shards.common.errors import ShardError, one_line
from colophon.shards.stores.objects import StoredObject

_HEAD_BYTES, _TAIL_BYTES = 16 << 10, 64 << 10
"""Read from both ends at first: the schema and the metadata of the first record batch; the footer."""
_TAIL_SHARE = 64
"""The last 64th of larger files is read: it has the runs too, which are some hundredths of a file."""


class SparseTable(NamedTuple):
    """A table of which the values of a list column are missing: they read as zeros."""

    table: Any
    values_at: list[int]
    """The offset in the object of the first value in each chunk of the column."""


def sparse_table(stored: StoredObject, *, absent: str) -> SparseTable:
    """Read an Arrow file but for the values of its list column `absent`.

    Raises:
        ShardError: the file is damaged, compressed or not an Arrow file, or lacks the column; or see `StoredObject`.
        StoreReadError: the store fails.
    """
    try:
        data = mmap.mmap(-1, stored.num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        file = _File(stored, data)
        file.load_ends()
        buffer = pa.py_buffer(data)
        reader = pa.ipc.open_file(buffer)
        file.load_batches(_values_buffer(reader.schema, absent))
        check_bounds(memoryview(data))
        table = pa.ipc.open_file(buffer).read_all()
        table.validate(full=True)
    except ShardError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardError(f"{stored.path}: not a readable Arrow file: {one_line(error)}") from None
    chunks = table.column(absent).chunks
    return SparseTable(table, [chunk.values.buffers()[1].address - buffer.address for chunk in chunks])


class _File:
    """The parts of an object that have been read, at their places in a mapping."""

    def __init__(self, stored: StoredObject, data: mmap.mmap) -> None:
        self._stored, self._data = stored, data
        self._loaded: list[tuple[int, int]] = []

    def load_ends(self) -> None:
        """Read the beginning and the end of the file, and the whole footer."""
        size = len(self._data)
        tail = max(_TAIL_BYTES, size // _TAIL_SHARE)
        self.load(max(size - tail, 0) if size > _HEAD_BYTES + tail else 0, size)
        self.load(0, min(_HEAD_BYTES, size))
        self.load(footer_start(memoryview(self._data)), size)

    def load_batches(self, absent: int) -> None:
        """Read the metadata and buffers of all record batches, except for the buffer number `absent` of each."""
        view = memoryview(self._data)
        for batch in batches(view):
            self.load(batch.at, batch.at + batch.head_bytes)
            places = buffers(view, batch)
            for part in (places[:absent], places[absent + 1 :]):
                if part:
                    self.load(part[0][0], max(at + size for at, size in part))

    def load(self, start: int, stop: int) -> None:
        """Read what is missing of a range."""
        missing = [(start, stop)]
        for first, last in self._loaded:
            pieces = [((a, min(b, first)), (max(a, last), b)) for a, b in missing]
            missing = [(a, b) for both in pieces for a, b in both if a < b]
        for a, b in missing:
            self._data[a:b] = self._stored.read(a, b)
            self._loaded.append((a, b))


def _values_buffer(schema: Any, column: str) -> int:
    """The number of the buffer with a list column's values in every record batch.

    Raises:
        ValueError: the column is missing, or a type has no place in a file of ours.
    """
    if column not in schema.names:
        raise ValueError(f"it has no column {column}")
    index = schema.names.index(column)
    return sum(_num_buffers(kind) for kind in schema.types[: index + 1]) - 1


def _num_buffers(kind: Any) -> int:
    if kinds.is_fixed_size_list(kind):
        return 1 + _num_buffers(kind.value_type)
    if kinds.is_list(kind):
        return 2 + _num_buffers(kind.value_type)
    if kinds.is_string(kind):
        return 3
    if kinds.is_integer(kind):
        return 2
    raise ValueError(f"columns of type {kind} are not supported")
