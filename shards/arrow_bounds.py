"""A check of the offsets and sizes in an Arrow IPC file, before Arrow reads it.

Arrow does not compare a record batch's buffers with the file's size, and it allocates the uncompressed size that a
compressed buffer declares. Our files have neither compression nor dictionaries; a file with either is refused. The
format is: magic, messages, footer (a FlatBuffers table with the messages' offsets), size of the footer, magic. Tables
and field numbers are those of Arrow's `File.fbs` and `Message.fbs`. Cost: some microseconds a record batch.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

_MAGIC = b"ARROW1"
_HEAD_BYTES = 8
_INT8, _UINT16, _INT32, _UINT32, _INT64 = Struct("<b"), Struct("<H"), Struct("<i"), Struct("<I"), Struct("<q")
_BLOCK = Struct("<qi4xq")
_NODE_OR_BUFFER = Struct("<2q")
_CONTINUATION = -1
_RECORD_BATCH = 3
_FOOTER_DICTIONARIES, _FOOTER_BATCHES = 2, 3
_MESSAGE_KIND, _MESSAGE_HEADER, _MESSAGE_BODY_BYTES = 1, 2, 3
_BATCH_ROWS, _BATCH_NODES, _BATCH_BUFFERS, _BATCH_COMPRESSION = 0, 1, 2, 3


def check_bounds(data: memoryview) -> None:
    """Raise ValueError unless every buffer of the file in `data` is uncompressed and inside the file."""
    for batch in batches(data):
        buffers(data, batch)


class Batch(NamedTuple):
    """The place of a record batch in a file, in bytes: its metadata, and after them its buffers."""

    at: int
    head_bytes: int
    body_bytes: int


def footer_start(data: memoryview) -> int:
    """The offset of the footer, from the first 6 and the last 10 bytes of a file.

    Raises:
        ValueError: it is not the file that an Arrow writer has completed.
    """
    tail = len(data) - len(_MAGIC) - _INT32.size
    if tail < _HEAD_BYTES or bytes(data[: len(_MAGIC)]) != _MAGIC or bytes(data[-len(_MAGIC) :]) != _MAGIC:
        raise ValueError("it does not begin and end with ARROW1")
    (footer_bytes,) = _INT32.unpack_from(data, tail)
    start: int = tail - footer_bytes
    if footer_bytes <= 0 or start < _HEAD_BYTES:
        raise ValueError("the size of its footer is invalid")
    return start


def batches(data: memoryview) -> list[Batch]:
    """The places of the record batches, from the footer.

    Raises:
        ValueError: the footer is invalid, or names dictionaries.
    """
    start = footer_start(data)
    footer = _root(data, start, end=len(data) - len(_MAGIC) - _INT32.size)
    if footer.places(_FOOTER_DICTIONARIES, _BLOCK.size):
        raise ValueError("it has dictionaries, which are not supported")
    found = [Batch(*footer.read(_BLOCK, place)) for place in footer.places(_FOOTER_BATCHES, _BLOCK.size)]
    for at, head_bytes, body_bytes in found:
        if at < _HEAD_BYTES or min(head_bytes, body_bytes) < 0 or at + head_bytes + body_bytes > start:
            raise ValueError("its footer names a record batch outside the file")
    return found


def buffers(data: memoryview, place: Batch) -> list[tuple[int, int]]:
    """The offset in the file and the size of each buffer of a record batch, from the batch's metadata.

    Raises:
        ValueError: the metadata are invalid, a buffer is outside the batch, or buffers are compressed.
    """
    at, end, body_bytes = place.at, place.at + place.head_bytes, place.body_bytes
    prefix = _Table(data, at, end)
    if prefix.read(_INT32, at) != (_CONTINUATION,):
        raise ValueError("a message does not begin with a continuation marker")
    message = _root(data, at + 2 * _INT32.size, end=end)
    if message.number(_MESSAGE_KIND, _INT8) != _RECORD_BATCH:
        raise ValueError("its footer names a message that is not a record batch")
    header = message.at(_MESSAGE_HEADER)
    if header is None or message.number(_MESSAGE_BODY_BYTES, _INT64) != body_bytes:
        raise ValueError("a record batch and the footer differ in the batch's size")
    batch = _Table(data, header + message.read(_UINT32, header)[0], end)
    if batch.at(_BATCH_COMPRESSION) is not None:
        raise ValueError("it is compressed, which is not supported")
    nodes = [batch.read(_NODE_OR_BUFFER, place) for place in batch.places(_BATCH_NODES, _NODE_OR_BUFFER.size)]
    if batch.number(_BATCH_ROWS, _INT64) < 0 or any(not 0 <= nulls <= rows for rows, nulls in nodes):
        raise ValueError("the number of rows or nulls of a record batch is invalid")
    found = [batch.read(_NODE_OR_BUFFER, place) for place in batch.places(_BATCH_BUFFERS, _NODE_OR_BUFFER.size)]
    if any(min(offset, size) < 0 or offset + size > body_bytes for offset, size in found):
        raise ValueError("a column is outside its record batch")
    return [(end + offset, size) for offset, size in found]


def _root(data: memoryview, at: int, *, end: int) -> _Table:
    (offset,) = _Table(data, at, end).read(_UINT32, at)
    return _Table(data, at + offset, end)


class _Table:
    """A FlatBuffers table at the offset `at` of a file; it reads nothing from the offset `end` on."""

    def __init__(self, data: memoryview, at: int, end: int) -> None:
        self._data, self._at, self._end = data, at, end

    def read(self, layout: Struct, at: int) -> tuple[int, ...]:
        """The numbers at an offset of the file."""
        if at < 0 or at + layout.size > self._end:
            raise ValueError("a table points outside the file")
        return layout.unpack_from(self._data, at)

    def at(self, field: int) -> int | None:
        """The offset of a field; None if the table lacks it."""
        fields_at = self._at - self.read(_INT32, self._at)[0]
        slot = _INT32.size + _UINT16.size * field  # after the sizes of the list of fields and of the table
        if slot + _UINT16.size > self.read(_UINT16, fields_at)[0]:
            return None
        (offset,) = self.read(_UINT16, fields_at + slot)
        return self._at + offset if offset else None

    def number(self, field: int, layout: Struct) -> int:
        """The value of a field; 0 if the table lacks it."""
        at = self.at(field)
        return 0 if at is None else self.read(layout, at)[0]

    def places(self, field: int, item_bytes: int) -> range:
        """The offsets of the structs of a list; none if the table lacks the list."""
        at = self.at(field)
        if at is None:
            return range(0)
        start = at + self.read(_UINT32, at)[0]
        (count,) = self.read(_UINT32, start)
        start += _UINT32.size
        if start + count * item_bytes > self._end:
            raise ValueError("a list reaches outside the file")
        return range(start, start + count * item_bytes, item_bytes)
