"""Packing, step 1: `concat` and `best_fit` assign slices of documents to rows, one Python step a segment."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import Layout, PlainLayout
from colophon.shards.metadata import DocumentMetadata

PackingMethod = Literal["concat", "best_fit"]


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Documents' parts in rows, ordered by row: `num_tokens` text tokens of `document` from `start`. All [n], int64."""

    row: NumPyArray
    document: NumPyArray
    start: NumPyArray
    num_tokens: NumPyArray
    last: NumPyArray
    """bool: whether the document ends in the segment."""

    @property
    def num_rows(self) -> int:
        """Rows from the first one to the last."""
        return int(self.row[-1]) + 1 if len(self.row) else 0

    def blocks(self, num_rows: int) -> Iterator[tuple[int, Segments]]:
        """The segments of `num_rows` rows at a time and the number of their first row; `row` then counts from 0."""
        firsts = range(0, self.num_rows, num_rows)
        cuts = np.searchsorted(self.row, [*firsts, self.num_rows]).tolist()
        for first, begin, end in zip(firsts, cuts[:-1], cuts[1:], strict=True):
            part = slice(begin, end)
            yield (
                first,
                Segments(
                    row=self.row[part] - first,
                    document=self.document[part],
                    start=self.start[part],
                    num_tokens=self.num_tokens[part],
                    last=self.last[part],
                ),
            )


class Overhead:
    """The number of a segment's ids that are not text: bos, eos on the last segment, and the wrapper if attached."""

    def __init__(self, layout: Layout, metadata: DocumentMetadata) -> None:
        self._wrapper: list[int] = np.where(metadata.wrapped, metadata.lengths + 2, 0).tolist()
        self.attached = attachment(layout)

    def __call__(self, document: int, *, first: bool, last: bool) -> int:
        """The number for a segment of the document, its first or last one or neither."""
        return 1 + last + (self._wrapper[document] if self.attached(first, last) else 0)


def attachment(layout: Layout) -> Callable[[bool, bool], bool]:
    """The rule whether a segment carries its document's metadata: a function of (first segment, last segment)."""
    if isinstance(layout, PlainLayout):
        return lambda first, last: False
    if layout.segments == "first":
        return lambda first, last: first
    if layout.segments == "last":
        return lambda first, last: last
    return lambda first, last: True


def plan_concat(lengths: list[int], *, overhead: Overhead, width: int) -> Segments:
    """Fill rows in document order; a document that does not fit continues in the next row.

    A segment that is not the last takes as many tokens as fit but leaves one for the next, so that every eos has text
    before it in its segment.
    """
    found = array("q")  # row, document, start, num_tokens, last of each segment; a tuple each would take 10 times more
    row, room = 0, width
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            taken, used = _take(document, start=start, length=length, room=room, overhead=overhead)
            if taken == 0:
                row, room = row + 1, width
                continue
            found.extend((row, document, start, taken, start + taken == length))
            start += taken
            room -= used
            if room == 0:
                row, room = row + 1, width
    row_, document_, start_, num_tokens, last = np.frombuffer(found, np.int64).reshape(-1, 5).T
    return Segments(row=row_, document=document_, start=start_, num_tokens=num_tokens, last=last.astype(bool))


def _take(document: int, *, start: int, length: int, room: int, overhead: Overhead) -> tuple[int, int]:
    """The number of text tokens of the document's next segment in `room` ids (0: none fits), and of all its ids.

    A document of 7 tokens, plain, 4 ids of room: bos and 3 tokens, (3, 4). Its last 2 tokens, 4 ids of room: bos, both
    and eos, (2, 4). Its last 3 tokens, 4 ids of room: eos would not fit, so (2, 3), and one token remains for eos.
    """
    left = length - start
    closing = overhead(document, first=start == 0, last=True)
    if left + closing <= room:
        return left, left + closing
    opening = overhead(document, first=start == 0, last=False)
    taken = max(min(room - opening, left - 1), 0)
    return taken, taken + opening


def plan_best_fit(lengths: list[int], *, overhead: Overhead, width: int) -> Segments:
    """Cut documents longer than a row into full rows; place the rests and the other documents longest first."""
    found = array("q")  # document, start, num_tokens, ids that the segment fills, last
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            taken, used = _take(document, start=start, length=length, room=width, overhead=overhead)
            found.extend((document, start, taken, used, start + taken == length))
            start += taken
    document_, start_, num_tokens, used_, last_ = np.frombuffer(found, np.int64).reshape(-1, 5).T
    last = last_.astype(bool)
    rests = np.flatnonzero(last)
    rests = rests[np.argsort(-used_[rests], kind="stable")]  # longest first, then in document order
    group = np.empty(len(last), np.int64)
    group[rests] = best_fit_bins(used_[rests].tolist(), width=width)
    group[~last] = len(rests) + np.arange(len(last) - len(rests))
    # Rows are in the order of their first document, so that a file has roughly the order of its input.
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    row = np.argsort(np.argsort(first))[inverse]
    order = np.argsort(row, kind="stable")
    return Segments(
        row=row[order],
        document=document_[order],
        start=start_[order],
        num_tokens=num_tokens[order],
        last=last[order],
    )


def best_fit_bins(sizes: list[int], *, width: int) -> list[int]:
    """The bin of each size, sizes descending; O(n log n + n · distinct capacities moved).

    Sizes [6, 5, 3, 2] in bins of 8 give [0, 1, 1, 0]: 3 fits bin 1 (3 left) but not bin 0 (2 left).
    """
    open_bins: dict[int, list[int]] = {}
    capacities: list[int] = []  # sorted keys of open_bins
    chosen: list[int] = []
    num_bins = 0
    for size in sizes:
        at = bisect_left(capacities, size)
        if at == len(capacities):
            capacity, number = width, num_bins
            num_bins += 1
        else:
            capacity = capacities[at]
            number = open_bins[capacity].pop()
            if not open_bins[capacity]:
                del open_bins[capacity], capacities[at]
        chosen.append(number)
        left = capacity - size
        if left:
            if left not in open_bins:
                insort(capacities, left)
            open_bins.setdefault(left, []).append(number)
    return chosen
