"""Columns of text as bytes and offsets, rows cut where no token crosses, and the sink that gathers ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from colophon.shards.common.errors import TokenizerError

Ids = npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]

MAX_IDS = 2**31 - 1
"""The largest int32 offset of a list array."""


@dataclass(frozen=True)
class TextRows:
    """Views of an Arrow array of strings: the UTF-8 bytes of row i are `data[offsets[i] : offsets[i + 1]]`.

    Nulls are empty.
    """

    data: Bytes
    offsets: Positions
    """int64 [number of rows + 1]; the first one need not be 0."""


@dataclass(frozen=True)
class CutRows:
    """Rows, the long ones in several parts; part k is `data[bounds[k] : bounds[k + 1]]`.

    Rows of 4, 9 and 2 bytes with a limit of 5 and one cut give, say, bounds [0, 4, 8, 13, 15] and first [0, 1, 3].
    """

    bounds: Positions
    """int64 [number of parts + 1]"""
    first: Positions
    """int64 [number of rows]: the number of each row's first part."""
    uncut: npt.NDArray[np.bool_]
    """bool [number of rows]: whether a row is longer than the limit but has no place to cut; it is then one part."""


class IdSink:
    """Gathers ids of one dtype in one array that grows in place."""

    def __init__(self, dtype: np.dtype[Any], *, expected: int) -> None:
        self._ids = np.empty(max(expected, 1024), dtype=dtype)
        self.size = 0

    def extend(self, ids: Ids, *, first_id: int = 0) -> None:
        """Append `ids + first_id`, which must fit the dtype.

        Raises:
            TokenizerError: more ids than the offsets of one list array can count.
        """
        end = self.size + ids.size
        if end > MAX_IDS:
            raise TokenizerError(f"the texts have {end} or more tokens; one array holds {MAX_IDS}. Pass fewer rows")
        if end > self._ids.size:
            # Large blocks are remapped, not copied, so two never exist at once. No view of the array exists yet.
            self._ids.resize(max(end, self._ids.size * 3 // 2), refcheck=False)
        np.add(ids, np.uint32(first_id), out=self._ids[self.size : end], casting="unsafe")
        self.size = end

    def cut(self, size: int) -> None:
        """Drop all but the first `size` ids."""
        self.size = size

    def lists(self, counts: Positions) -> pa.ListArray:
        """The ids as list rows, row i with `counts[i]` ids; the sink must not be used afterwards."""
        offsets = np.zeros(counts.size + 1, dtype=np.int32)
        np.cumsum(counts, out=offsets[1:])
        self._ids.resize(self.size, refcheck=False)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(self._ids))


def text_chunks(texts: pa.Array | pa.ChunkedArray) -> Iterator[pa.Array]:
    """The column's chunks as string or large_string arrays of valid UTF-8.

    Raises:
        TokenizerError: the column is not text, or a text is not UTF-8; the message names its row.
    """
    if pa.types.is_dictionary(texts.type):
        texts = texts.cast(texts.type.value_type)
    if not _is_text(texts.type):
        raise TokenizerError(f"texts must be strings, got a column of type {texts.type}")
    first = 0
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        _check_utf8(chunk, first_row=first)
        yield chunk if pa.types.is_string(chunk.type) else chunk.cast(pa.large_string())
        first += len(chunk)


def text_rows(texts: pa.Array) -> TextRows:
    """The buffers of a string or large_string array, without a copy unless a null covers bytes."""
    width = np.int32 if pa.types.is_string(texts.type) else np.int64
    _, offset_buffer, data_buffer = texts.buffers()
    if not len(texts) or data_buffer is None:
        return TextRows(np.empty(0, np.uint8), np.zeros(len(texts) + 1, np.int64))
    offsets = np.frombuffer(offset_buffer, width)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    if texts.null_count and np.diff(offsets)[texts.is_null().to_numpy(zero_copy_only=False)].any():
        return text_rows(texts.fill_null(""))
    return TextRows(np.frombuffer(data_buffer, np.uint8), offsets)


def cut_rows(rows: TextRows, *, limit: int) -> CutRows:
    """Cut rows longer than `limit` bytes into parts of at most `limit` bytes.

    Every cut is before a space that follows a visible ASCII character. In no known pattern does a token or a
    look-around cross such a place, so the ids of the parts, joined, are the ids of the row.
    """
    lengths = np.diff(rows.offsets)
    cuts: dict[int, Positions | None] = {
        row: _cuts(rows.data[rows.offsets[row] : rows.offsets[row + 1]], limit)
        for row in np.flatnonzero(lengths > limit).tolist()
    }
    uncut = np.zeros(lengths.size, dtype=bool)
    uncut[[row for row, places in cuts.items() if places is None]] = True
    found = {row: places + rows.offsets[row] for row, places in cuts.items() if places is not None}
    # offsets [0, 4, 13, 15] and a cut of row 1 at byte 8: insert 8 at 2 -> bounds [0, 4, 8, 13, 15]
    inserted = np.array([row + 1 for row, places in found.items() for _ in range(places.size)], dtype=np.int64)
    bounds = np.insert(rows.offsets, inserted, np.concatenate([np.empty(0, np.int64), *found.values()]))
    # The cut of row 1 moves the first part of the rows after it: [0, 1, 2] + cumsum [0, 0, 1] -> first [0, 1, 3]
    parts_before = np.zeros(lengths.size, dtype=np.int64)
    np.add.at(parts_before, inserted[inserted < lengths.size], 1)
    return CutRows(bounds, np.arange(lengths.size) + np.cumsum(parts_before), uncut)


def _cuts(text: Bytes, limit: int) -> Positions | None:
    """Places to cut, ascending, as few as possible; None if a stretch longer than `limit` has no such place."""
    chosen: list[int] = []
    start = 0
    while text.size - start > limit:
        window = text[start : start + limit + 1]
        places = np.flatnonzero((window[1:] == 0x20) & (window[:-1] > 0x20) & (window[:-1] < 0x7F))
        if not places.size:
            return None
        start += int(places[-1]) + 1
        chosen.append(start)
    return np.array(chosen, dtype=np.int64)


def _is_text(kind: pa.DataType) -> bool:
    return any(
        check(kind)
        for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    )


def _check_utf8(chunk: pa.Array, *, first_row: int) -> None:
    try:
        chunk.validate(full=True)
    except pa.ArrowInvalid as error:
        for row, text in enumerate(chunk):
            try:
                text.as_py()
            except UnicodeDecodeError as reason:
                raise TokenizerError(f"the text in row {first_row + row} is not UTF-8: {reason}") from error
        raise
