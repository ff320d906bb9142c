"""Plain text files, compressed or not: a file is a document, with its path as id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columns import ColumnNeed, column_problem, named_columns, positions
from colophon.pipeline.inputs.jsonl.lines import open_lines
from colophon.pipeline.inputs.limits import TooLargeError, line_too_large
from colophon.shards.common.text_encoding import BYTE_ORDER_MARK, utf8_text

if TYPE_CHECKING:  # planning imports this module
    from colophon.pipeline.inputs.partition_table import Partition

_BLOCK_BYTES = 1 << 20
_SCHEMA = pa.schema([("text", pa.string()), ("id", pa.string()), ("file_path", pa.string())])


def text_schema(url: str) -> pa.Schema:
    """The columns of every text file: `text`, and its path as `id` and `file_path`. The file is not opened."""
    return _SCHEMA


def text_batches(partition: Partition, needs: Sequence[ColumnNeed]) -> Iterator[pa.RecordBatch]:
    """The one document of a text file: its needed columns, under their FineWeb names.

    A byte order mark is no part of the text. Line ends stay as they are.

    Raises:
        InputError: a needed column is not among those of a text file, or the file is not UTF-8.
        TooLargeError: the text has more than `max_document_bytes`.
    """
    if problem := column_problem(_SCHEMA, needs):
        raise InputError(problem)
    content = _content(partition.url, limit=partition.max_document_bytes)
    try:
        text = utf8_text(content)
    except ValueError as error:
        raise InputError(str(error)) from None
    batch = pa.record_batch([[text], [partition.source], [partition.source]], schema=_SCHEMA)
    yield named_columns(batch, positions(_SCHEMA, needs))


def _content(url: str, *, limit: int) -> bytes:
    """The bytes of a file, decompressed; not much more than `limit` of them are read."""
    content = bytearray()
    with open_lines(url) as file:
        while len(content) <= limit + len(BYTE_ORDER_MARK) and (block := file.read(_BLOCK_BYTES)):
            content += block
    if len(content.removeprefix(BYTE_ORDER_MARK)) > limit:
        raise TooLargeError(line_too_large("the file", limit))
    return bytes(content)
