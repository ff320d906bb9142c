"""Footers of Parquet files, parsed once in a process for all partitions of a file.

The footer of a file of 20,000 row groups has 6 MB and takes 100 ms to parse: a worker that did so for each partition
would do little else. A footer is kept while the file is the same: of a local file the size, inode and times of change
of content and attributes, of a file of a store the size and version. No program can set the last of these times.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.inputs.files import digest, file_info, size_and_identity
from colophon.shards.stores.filesystems import open_url

_KEPT_BYTES = 32 << 20
"""The size in their files of the footers that are kept, beside the last; parsed they take some ten times as much."""
_END_BYTES = 64 << 10


class Footer(NamedTuple):
    """A file's footer, and the file's identity with it."""

    metadata: pq.FileMetaData
    identity: str


class _Footers:
    """The footers that were used last, by URL, each with the state of its file."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[object, Footer]] = OrderedDict()
        self._lock = Lock()

    def get(self, url: str, state: object) -> Footer | None:
        with self._lock:
            known_state, footer = self._known.get(url, (None, None))
            if footer is None or known_state != state:
                return None
            self._known.move_to_end(url)
            return footer

    def put(self, url: str, state: object, footer: Footer) -> None:
        with self._lock:
            self._known[url] = (state, footer)
            self._known.move_to_end(url)
            size = sum(kept.metadata.serialized_size for _, kept in self._known.values())
            while size > _KEPT_BYTES and len(self._known) > 1:
                _, (_, dropped) = self._known.popitem(last=False)
                size -= dropped.metadata.serialized_size


_footers = _Footers()


def footer_of(url: str) -> Footer:
    """The footer of the file as it is now. Cost: that of `file_info`, if the footer is known.

    Raises:
        OSError, pa.ArrowException: the file cannot be read.
    """
    state, of_file = _state(url)
    known = _footers.get(url, state)
    if known is not None:
        return known
    metadata = read_footer(url)
    footer = Footer(metadata, parquet_identity(of_file, metadata))
    _footers.put(url, state, footer)
    return footer


def _state(url: str) -> tuple[object, str]:
    """A value that changes with the file, and the digest of its size and version."""
    if "://" in url:
        of_file = size_and_identity(file_info(url))[1]
        return of_file, of_file
    status = Path(url).stat()
    of_file = size_and_identity({"size": status.st_size, "mtime": status.st_mtime_ns})[1]
    return (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns), of_file


def read_footer(url: str) -> pq.FileMetaData:
    """Read and parse the footer of a file. Little else is read.

    Raises:
        OSError, pa.ArrowException: the file cannot be read.
    """
    with open_url(url) if "://" in url else _end_of(url) as source:
        return pq.read_metadata(source)


def _end_of(path: str) -> pa.NativeFile:
    """The end of a local file, with all of its footer: one read takes 8 µs, pyarrow's own open and reads 25 to 60."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        end = os.pread(file, _END_BYTES, max(size - _END_BYTES, 0))
        length = int.from_bytes(end[-8:-4], "little") + 8  # the footer, its length in 4 bytes, and `PAR1`
        if len(end) < min(length, size):
            end = os.pread(file, length, max(size - length, 0))
    finally:
        os.close(file)
    return pa.BufferReader(end)


def parquet_identity(of_file: str, metadata: pq.FileMetaData) -> str:
    """A digest of the file's size and version, and of its footer, which few changes of the content leave as it is."""
    sink = pa.BufferOutputStream()
    metadata.write_metadata_file(sink)
    return digest(of_file.encode() + sink.getvalue().to_pybytes())
