"""Arrow IPC files and streams as batches of the needed columns, read so that a damaged file raises.

Other columns are not loaded. Two things are checked here because Arrow does not: that a file's footer lists as many
batches as the file has, and that a stream does not end early.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from colophon.pipeline.errors import InputError, one_line
from colophon.pipeline.inputs.columnar.conversion import bare_type
from colophon.pipeline.inputs.columns import ColumnNeed, column_problem, named_columns, positions
from colophon.shards.stores.filesystems import filesystem_of

_MAGIC = b"ARROW1"
_MAGIC_BYTES = 8
"""`ARROW1` with padding, before the part of a file that has the stream format."""
_CONTINUATION = b"\xff\xff\xff\xff"
"""The first bytes of each message, since Arrow 0.15."""
_LENGTH_ZERO = bytes(4)
"""After it, or in older streams alone: the end of the stream."""


def arrow_schema(url: str) -> pa.Schema:
    """The schema of a file or a stream.

    Raises:
        InputError: it is neither.
    """
    with _open(url) as handle:
        return _schema(handle)


def arrow_batches(url: str, needs: Sequence[ColumnNeed]) -> Iterator[pa.RecordBatch]:
    """The needed columns that the file has, under their FineWeb names and in the file's types.

    Raises:
        InputError: the schema lacks a needed column, or batches are missing.
    """
    with _open(url) as handle:
        expected = pa.ipc.open_file(handle).num_record_batches if _is_file(handle) else None
        schema = _schema(handle)
        if problem := column_problem(schema, needs):
            raise InputError(problem)
        places = positions(schema, needs)
        included = sorted({path[0] for path in places.values()})
        num_batches = 0
        for batch in _stream(handle, included):
            num_batches += 1
            _check_batch(batch)
            yield named_columns(batch, {n: (included.index(path[0]), *path[1:]) for n, path in places.items()})
        if expected is None:
            _check_end(handle)
        elif num_batches != expected:
            raise InputError(f"{num_batches} record batches read, the footer lists {expected}")


def _open(url: str) -> AbstractContextManager[Any]:
    """A local file as `pa.OSFile`: Python's would try to allocate the 2^60 bytes that a damaged message claims."""
    path, opened = url, None
    if "://" in url:
        filesystem, path = filesystem_of(url)
        opened = None if isinstance(filesystem, LocalFileSystem) else filesystem.open(path, "rb")
    file: AbstractContextManager[Any] = opened or pa.OSFile(path)
    return file


def _schema(handle: Any) -> pa.Schema:
    _seek_to_stream(handle)
    try:
        return pa.ipc.open_stream(handle).schema
    except pa.ArrowInvalid as error:
        raise InputError(f"neither an Arrow IPC file nor a stream: {one_line(error)}") from error


def _is_file(handle: Any) -> bool:
    handle.seek(0)
    start: bytes = handle.read(len(_MAGIC))
    return start == _MAGIC


def _seek_to_stream(handle: Any) -> None:
    handle.seek(_MAGIC_BYTES if _is_file(handle) else 0)


def _stream(handle: Any, places: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """The batches with the columns at these places alone; with all columns if there are none."""
    _seek_to_stream(handle)
    yield from pa.ipc.open_stream(handle, options=pa.ipc.IpcReadOptions(included_fields=places))


def _check_batch(batch: pa.RecordBatch) -> None:
    """Check all offsets and lengths in a batch. What its values mean is not checked: text is repaired when converted.

    Raises:
        pa.ArrowInvalid: the batch is damaged.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        try:
            for column in batch.columns:
                column.view(bare_type(column.type)).validate(full=True)
        except (pa.ArrowException, TypeError):
            raise error from None


def _check_end(handle: Any) -> None:
    """Check that a stream, which was read to its end, has its end mark there. An older stream may lack it unnoticed."""
    end = handle.tell()
    handle.seek(0)
    mark = (_CONTINUATION if handle.read(len(_CONTINUATION)) == _CONTINUATION else b"") + _LENGTH_ZERO
    handle.seek(end - len(mark))
    if handle.read(len(mark)) != mark:
        raise InputError("the Arrow stream ends without its end mark: it was cut short, or its writer was not closed")
    if handle.read(1):
        raise InputError(f"there is more data after the end of the Arrow stream, at byte {end}")
