"""Packed rows in an object store: read by ranges, several requests at once, through a cache on this machine's disk.

The order of a training is a permutation of all rows, so a cache of whole files would read a file for every row as soon
as they do not all fit. Here a row that is not cached is one request of exactly its bytes; the runs of all rows are in
memory, as they are for local files. `PackedDataset.read_ahead` starts the requests of later batches.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from hashlib import sha256
from itertools import pairwise
from typing import Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.cache_directory import cache_part, private_directory
from colophon.shards.common.errors import ShardError
from colophon.shards.reader import PackedDataset, PackedFile
from colophon.shards.records import Record
from colophon.shards.stores.cache_settings import CacheSettings
from colophon.shards.stores.objects import REQUESTS, StoredObject
from colophon.shards.stores.places import StorePath
from colophon.shards.stores.row_cache import RowCache
from colophon.shards.stores.sparse import sparse_table

MAX_AHEAD_BYTES = 256 << 20
"""Rows in memory that were read ahead; more are not read ahead."""
_PART = "shards"
_PART_BYTES = 4 << 20
"""The largest request where whole parts of a file are read."""


class StoredIds:
    """The ids of a file as rows, each read when it is asked for; see `reader.IdRows`."""

    def __init__(
        self, stored: StoredObject, *, dtype: np.dtype[Any], width: int, chunks: list[tuple[int, int]]
    ) -> None:
        """The ids of an object.

        Args:
            stored: the object.
            dtype: of the ids.
            width: ids of a row.
            chunks: the offset of the first id of each chunk, and its number of rows.
        """
        self.dtype, self._stored, self._width = dtype, stored, width
        self._offsets = [at for at, _ in chunks]
        self._first_rows = np.cumsum([0, *(rows for _, rows in chunks)])
        self.row_bytes = width * dtype.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and ids of a row."""
        return len(self), self._width

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    def __getitem__(self, rows: Any, /) -> NumPyArray:
        """The ids of a row [width], or of a slice of rows without a step [n, width]; large parts, several at once."""
        if not isinstance(rows, slice):
            return np.frombuffer(self.read(int(rows)), self.dtype)
        start, stop, _ = rows.indices(len(self))
        contents = REQUESTS.all([partial(self._stored.read, *part) for part in self._ranges(start, stop)])
        return np.frombuffer(b"".join(contents), self.dtype).reshape(-1, self._width)

    def _ranges(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the bytes of the rows from `start` up to `stop`, in parts of one chunk and one request."""
        bounds = pairwise(self._first_rows.tolist())
        for at, (first, end) in zip(self._offsets, bounds, strict=True):
            begin = at + (max(start, first) - first) * self.row_bytes
            last = at + (min(stop, end) - first) * self.row_bytes
            for part in range(begin, last, _PART_BYTES):
                yield part, min(part + _PART_BYTES, last)

    def read(self, row: int) -> bytes:
        """The bytes of a row."""
        chunk = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        start = self._offsets[chunk] + (row - int(self._first_rows[chunk])) * self.row_bytes
        return self._stored.read(start, start + self.row_bytes)


class StoredFile(PackedFile):
    """One packed file in an object store: its runs in memory, its ids in the store."""

    def __init__(self, path: StorePath, record: Record) -> None:
        """Open the file of a record.

        Raises:
            ShardError: the object is missing or differs from its record, or see `PackedFile`.
            StoreReadError: the store fails.
        """
        stored = StoredObject(path, num_bytes=record.bytes)
        table, offsets = sparse_table(stored, absent="input_ids")
        column = table.column("input_ids")
        kind, chunks = column.type, zip(offsets, map(len, column.chunks), strict=True)
        width, dtype = getattr(kind, "list_size", 1), np.dtype(kind.value_type.to_pandas_dtype())
        self.ids = StoredIds(stored, dtype=dtype, width=width, chunks=list(chunks))
        super().__init__(path, table=table, input_ids=self.ids)
        if len(self) != record.rows:
            raise ShardError(f"{path} has {len(self)} rows; its record has {record.rows}")
        self.content = f"{record.sha256} {stored.version}"
        """Identifies the content of the file."""


class StoredDataset(PackedDataset):
    """All packed files of one layout in an object store as one sequence of rows."""

    is_stored = True

    def __init__(self, files: Sequence[StoredFile], *, cache: CacheSettings, report: Callable[[str], None]) -> None:
        """Open the cache of the files' rows.

        Raises:
            ShardError: there is no file, or they were packed with different settings.
            CacheError: the cache cannot be used.
        """
        super().__init__(files)
        self._stored, self.row_bytes = files, files[0].ids.row_bytes
        self._cache = self._open_cache(cache, report) if cache.max_bytes else None
        self._lock, self._ahead, self._pid = threading.Lock(), dict[int, Future[bytes]](), os.getpid()
        self.requests = self.cached = 0
        """Rows that were requested from the store so far, and rows that the cache had."""

    def read_ahead(self, rows: NumPyArray) -> None:
        """Start to request rows that are not cached, up to `MAX_AHEAD_BYTES` that wait to be asked for."""
        with self._own_lock():
            for row in np.unique(rows).tolist():
                if len(self._ahead) * self.row_bytes >= MAX_AHEAD_BYTES:
                    return
                if row not in self._ahead and not self._is_cached(row):
                    self._ahead[row] = self._request(row)

    def traffic(self) -> str | None:
        """A human-readable line: `s3://bucket/out/web/packed/plain: 504 rows requested (2.1 MB), 20 from the cache`."""
        megabytes = self.requests * self.row_bytes / 1e6
        return (
            f"{self.files[0].path.parent}: {self.requests:,} rows requested ({megabytes:,.1f} MB), "
            f"{self.cached:,} from the cache"
        )

    def _copy_ids(self, rows: NumPyArray, located: Sequence[tuple[PackedFile, int]], *, into: NumPyArray) -> None:
        with self._own_lock():
            contents = self._contents(np.unique(rows).tolist())
        for i, row in enumerate(rows.tolist()):
            into[i] = np.frombuffer(contents[row], into.dtype)

    def _contents(self, rows: Sequence[int]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        requested: dict[int, Future[bytes]] = {}
        for row in rows:
            content = None if row in self._ahead or self._cache is None else self._cache.read(row)
            if content is None:
                requested[row] = self._ahead.pop(row) if row in self._ahead else self._request(row)
            else:
                found[row] = content
        self.cached += len(found)
        new = {row: future.result() for row, future in requested.items()}
        if self._cache is not None and new:
            self._cache.add(list(new), list(new.values()))
        return found | new

    def _request(self, row: int) -> Future[bytes]:
        file, place = self.locate(row)
        assert isinstance(file, StoredFile)
        self.requests += 1
        return REQUESTS.submit(file.ids.read, place)

    def _is_cached(self, row: int) -> bool:
        return self._cache is not None and bool(self._cache.has(np.array([row]))[0])

    def _own_lock(self) -> threading.Lock:
        """The lock of this process. Requests of a process that was forked from are not this one's."""
        if self._pid != os.getpid():
            self._lock, self._ahead, self._pid = threading.Lock(), {}, os.getpid()
        return self._lock

    def _open_cache(self, cache: CacheSettings, report: Callable[[str], None]) -> RowCache:
        parts = [str(self.row_bytes), *(file.content for file in self._stored)]
        remedy = "choose another directory for the cache"
        directory = cache.directory
        return RowCache(
            cache_part(_PART) if directory is None else private_directory(directory, remedy=remedy),
            key=sha256("\n".join(parts).encode()).hexdigest(),
            num_rows=len(self),
            row_bytes=self.row_bytes,
            max_bytes=cache.max_bytes,
            report=report,
        )


def open_stored(
    output: StorePath, records: Sequence[Record], *, cache: CacheSettings | None, report: Callable[[str], None]
) -> StoredDataset:
    """The files of a layout's records in an object store; several are opened at once.

    Raises:
        ShardError: a file is missing or differs from its record.
        StoreReadError, CacheError: the store fails; the cache cannot be used.
    """
    with_rows = [record for record in records if record.rows]
    files = REQUESTS.all([partial(StoredFile, output / record.path, record) for record in with_rows])
    return StoredDataset(files, cache=CacheSettings() if cache is None else cache, report=report)
