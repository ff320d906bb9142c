"""The pages of Parquet column chunks, from their headers: what a chunk unpacks to is known before it is unpacked.

A footer does not show it. A dictionary of one value of 1 MB and two bytes for each of 1,000,000 rows are a terabyte of
strings, and nothing compares the sizes in a footer with those of the pages. Cost: about
10 µs a page, of about 1 MiB. A dictionary of more than 8 MiB is unpacked a second time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.inputs.limits import TooLargeError, line_too_large

DECODED_BYTES = 64 << 20
"""About the most bytes of a decoded batch of several rows, beside its pages."""
_PAGE_BYTES = 64 << 20
_PAGE_DOCUMENTS = 4
_MOST_COMPRESSION = 16
"""A page may unpack to more than 64 MiB and 4 of the largest documents if it is not compressed by more than this."""

_HEADER_BYTES = 256
_MAX_HEADER_BYTES = 16 << 20
"""Arrow reads no longer header."""
_MOST_NESTED = 8
_MOST_DICTIONARY_VALUES = 1 << 20
_UNREAD_DICTIONARY_BYTES = 8 << 20
"""In a smaller one every value is taken to be as long as the whole: 8 rows at once, which are read nearly as fast."""
_DICTIONARY_PAGE = 2
_DICTIONARY_ENCODINGS = (2, 8)
"""PLAIN_DICTIONARY, RLE_DICTIONARY: a value has a few bits."""
_DELTA_BYTE_ARRAY = 7
"""A value may repeat all bytes of the value before it."""
_CODECS = {"ZSTD": "zstd", "SNAPPY": "snappy", "GZIP": "gzip", "BROTLI": "brotli", "LZ4_RAW": "lz4_raw"}


@dataclass(frozen=True)
class Page:
    """A page by its header. Sizes are in bytes."""

    is_dictionary: bool
    unpacked: int
    packed: int
    num_values: int
    encoding: int
    begin: int
    """The place of its content in the file."""


def most_row_bytes(file: Any, chunk: pq.ColumnChunkMetaData, *, max_document_bytes: int, all_pages: bool) -> float:
    """The bytes of a row of a column chunk, so that n consecutive rows decode to n times as many and two pages at most.

    Args:
        file: the file, open for reading at any place.
        chunk: the chunk's part of the footer.
        max_document_bytes: the limit from which the size of pages follows.
        all_pages: False reads the first page's header only and trusts the footer for the rest.

    Raises:
        TooLargeError: a page holds larger documents, or unpacks to far more than it has in the file.
    """
    longest = row_bytes = 0.0
    try:
        for page in pages(file, chunk):
            _check(page, chunk, max_document_bytes)
            if page.is_dictionary:
                longest = _longest_value(file, page, chunk)
            elif page.encoding in _DICTIONARY_ENCODINGS:
                row_bytes = max(row_bytes, longest)
            elif page.encoding == _DELTA_BYTE_ARRAY:
                row_bytes = max(row_bytes, page.unpacked)
            else:
                row_bytes = max(row_bytes, page.unpacked / max(page.num_values, 1))
            if not all_pages:
                return max(row_bytes, longest)
    except (ValueError, IndexError, struct.error):
        pass  # an encrypted or damaged header, at which Arrow ends as well
    return row_bytes


def _check(page: Page, chunk: pq.ColumnChunkMetaData, limit: int) -> None:
    if page.unpacked <= max(_PAGE_BYTES, _PAGE_DOCUMENTS * limit):
        return
    has_large_values = page.unpacked > limit * max(page.num_values, 1)
    if has_large_values or page.unpacked > _MOST_COMPRESSION * page.packed:
        what = f"column {chunk.path_in_schema[:100]!r}: a page of {page.num_values:,} values that unpacks from "
        raise TooLargeError(line_too_large(f"{what}{page.packed:,} to {page.unpacked:,} bytes", limit))


def pages(file: Any, chunk: pq.ColumnChunkMetaData) -> Iterator[Page]:
    """The pages of a chunk in the order of the file.

    Raises:
        ValueError, IndexError: a header that is none.
    """
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < at:
        at = chunk.dictionary_page_offset
    end = at + chunk.total_compressed_size
    while at < end:
        page = _page_at(file, at)
        yield page
        at = page.begin + page.packed


def _page_at(file: Any, at: int) -> Page:
    size = _HEADER_BYTES
    while True:
        file.seek(at)
        data = file.read(size)
        try:
            fields, length = _struct(data, 0)
            break
        except IndexError:  # statistics may make it longer
            if len(data) < size or size >= _MAX_HEADER_BYTES:
                raise
            size = min(size * 16, _MAX_HEADER_BYTES)
    inner = fields.get(5) or fields.get(7) or fields.get(8) or {}
    page = Page(
        is_dictionary=fields[1] == _DICTIONARY_PAGE,
        unpacked=fields[2],
        packed=fields[3],
        num_values=inner.get(1, 0),
        encoding=inner.get(4 if 8 in fields else 2, 0),
        begin=at + length,
    )
    if page.packed < 0 or page.unpacked < 0:
        raise ValueError("a page of negative size")
    return page


def _longest_value(file: Any, page: Page, chunk: pq.ColumnChunkMetaData) -> int:
    """Bytes of the longest value of a dictionary of byte arrays; that of the whole dictionary if it is not read."""
    if chunk.physical_type != "BYTE_ARRAY" or page.unpacked <= _UNREAD_DICTIONARY_BYTES:
        return page.unpacked
    if page.num_values > _MOST_DICTIONARY_VALUES or not (chunk.compression in _CODECS or page.packed == page.unpacked):
        return page.unpacked
    file.seek(page.begin)
    data = file.read(page.packed)
    if chunk.compression in _CODECS:
        data = pa.Codec(_CODECS[chunk.compression]).decompress(data, page.unpacked)
    longest = at = 0
    for _ in range(page.num_values):
        (length,) = struct.unpack_from("<I", data, at)
        longest = max(longest, length)
        at += 4 + length
    return min(longest, page.unpacked)


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """The fields of a struct in Thrift's compact protocol by number, and the place after it.

    Raises:
        IndexError: the data ends before the struct.
        ValueError: an unknown type, or structs in structs without end.
    """
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        kind, step = head & 15, head >> 4
        if step:
            number += step
        else:
            number, at = _signed(data, at)
        fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _signed(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _unsigned(data, at)
        if at + length > len(data):
            raise IndexError
        return None, at + length
    if kind == 12 and depth < _MOST_NESTED:
        return _struct(data, at, depth + 1)
    raise ValueError(f"type {kind} in a page header")


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _signed(data: bytes, at: int) -> tuple[int, int]:
    number, at = _unsigned(data, at)
    return (number >> 1) ^ -(number & 1), at
