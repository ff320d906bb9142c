"""Packing: arranges a partition's tokens and metadata as fixed-length sequences, in one layout.

Three steps, each a function of arrays:

1. *Plan*: assign slices of documents to rows. One Python step a segment, so the cost is a few microseconds for about
   every thousand tokens. `concat` fills rows in document order and cuts documents where the row ends; `best_fit` cuts
   only documents longer than a row and puts each rest into the fullest row that has room (best-fit decreasing; Ding et
   al., "Fewer Truncations Improve Language Modeling", 2404.10830).
2. *Runs*: turn the plan's segments into runs: source of the ids, length, role, document.
3. *Gather*: copy the runs into their rows: text by slices of the token file, which may be mapped and in chunks; special
   ids and metadata by index.

Steps 2 and 3 process some thousand segments at a time. The file stores the runs of step 2, so the mask cannot differ
from the ids. Memory: 40 bytes a segment for the plan, 10 bytes a run, and the rows, which `allocate` may put into a
mapped file.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import AppendLayout, Layout, MetaTokensLayout, PlainLayout
from colophon.shards.metadata import DocumentMetadata
from colophon.shards.schema import NO_DOCUMENT, ROLE_NAMES, Role, RoleName, SpecialIds

PackingMethod = Literal["concat", "best_fit"]
_GATHER_TOKENS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One partition in one layout; the arrays are those of `shards.arrow_files.packed_table`."""

    input_ids: NumPyArray
    run_lengths: NumPyArray
    run_roles: NumPyArray
    run_documents: NumPyArray
    runs_per_row: NumPyArray
    num_tokens: dict[RoleName, int]
    counts: dict[str, int]
    """`documents`, `documents_empty`, `documents_cut`, `segments` and those of `DocumentMetadata.counts`."""


def smallest_row(layout: Layout) -> int:
    """The length of the longest segment with one text token: bos, boc, metadata, eoc, text, eos. A row must hold it."""
    if isinstance(layout, PlainLayout):
        return 3
    longest = layout.num_meta_tokens if isinstance(layout, MetaTokensLayout) else layout.max_metadata_tokens
    return longest + 5


def pack(
    layout: Layout,
    *,
    text_offsets: NumPyArray,
    text_ids: NumPyArray | Sequence[NumPyArray],
    metadata: DocumentMetadata,
    special: SpecialIds,
    sequence_length: int,
    method: PackingMethod = "concat",
    allocate: Callable[[tuple[int, int], Any], NumPyArray] = np.empty,
) -> Packed:
    """Arrange a partition's documents in rows of `sequence_length + 1` ids.

    Args:
        layout: the position of metadata.
        text_offsets: int64 [num_documents + 1] into all text ids.
        text_ids: uint16 or uint32 [num_text_tokens], or chunks of it that end where documents end; the result has
            its dtype, which must hold the special ids.
        metadata: the metadata of each document.
        special: ids of the special tokens.
        sequence_length: inputs of a row.
        method: `concat` or `best_fit`.
        allocate: returns the array for the rows, given its shape and dtype.

    Raises:
        ValueError: the rows are too short for the layout, or the tokenizer has too few meta tokens.
    """
    width = sequence_length + 1
    if isinstance(layout, MetaTokensLayout) and layout.num_meta_tokens > len(special.meta):
        raise ValueError(
            f"the layout needs {layout.num_meta_tokens} meta tokens; the tokenizer has {len(special.meta)}"
        )
    if width < smallest_row(layout):
        raise ValueError(f"sequence_length must be at least {smallest_row(layout) - 1} for this layout")
    lengths = np.diff(text_offsets)
    plan = _plan_concat if method == "concat" else _plan_best_fit
    segments = plan(lengths.tolist(), overhead=_Overhead(layout, metadata), width=width)
    ids = _Ids(special, metadata=metadata, text=[text_ids] if isinstance(text_ids, np.ndarray) else text_ids)
    rows = allocate((segments.num_rows, width), ids.dtype)
    runs = [_runs_header()]
    for first, block in segments.blocks(max(_GATHER_TOKENS // width, 1)):
        found = _runs(block, layout=layout, metadata=metadata, special=special, text_offsets=text_offsets, width=width)
        _gather(ids, found, rows[first : first + block.num_rows], pad=special.pad)
        runs.append(found.compact())
    run_lengths, run_roles, run_documents, runs_per_row = map(np.concatenate, zip(*runs, strict=True))
    per_role = np.bincount(run_roles, weights=run_lengths, minlength=len(ROLE_NAMES))
    counts = {
        "documents": len(lengths),
        "documents_empty": int((lengths == 0).sum()),
        "documents_cut": int(np.count_nonzero(segments.last & (segments.start > 0))),
        "segments": len(segments.row),
        **metadata.counts,
    }
    return Packed(
        input_ids=rows,
        run_lengths=run_lengths,
        run_roles=run_roles,
        run_documents=run_documents,
        runs_per_row=runs_per_row,
        num_tokens={name: int(n) for name, n in zip(ROLE_NAMES, per_role, strict=True)},
        counts=counts,
    )


@dataclass(frozen=True, kw_only=True)
class _Segments:
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

    def blocks(self, num_rows: int) -> Iterator[tuple[int, _Segments]]:
        """The segments of `num_rows` rows at a time and the number of their first row; `row` then counts from 0."""
        firsts = range(0, self.num_rows, num_rows)
        cuts = np.searchsorted(self.row, [*firsts, self.num_rows]).tolist()
        for first, begin, end in zip(firsts, cuts[:-1], cuts[1:], strict=True):
            part = slice(begin, end)
            yield (
                first,
                _Segments(
                    row=self.row[part] - first,
                    document=self.document[part],
                    start=self.start[part],
                    num_tokens=self.num_tokens[part],
                    last=self.last[part],
                ),
            )


class _Overhead:
    """The number of a segment's ids that are not text: bos, eos on the last segment, and the wrapper if attached."""

    def __init__(self, layout: Layout, metadata: DocumentMetadata) -> None:
        self._wrapper: list[int] = np.where(metadata.wrapped, metadata.lengths + 2, 0).tolist()
        self.attached = attachment(layout)

    def __call__(self, document: int, *, first: bool, last: bool) -> int:
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


def _plan_concat(lengths: list[int], *, overhead: _Overhead, width: int) -> _Segments:
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
    return _Segments(row=row_, document=document_, start=start_, num_tokens=num_tokens, last=last.astype(bool))


def _take(document: int, *, start: int, length: int, room: int, overhead: _Overhead) -> tuple[int, int]:
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


def _plan_best_fit(lengths: list[int], *, overhead: _Overhead, width: int) -> _Segments:
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
    group[rests] = _best_fit(used_[rests].tolist(), width=width)
    group[~last] = len(rests) + np.arange(len(last) - len(rests))
    # Rows are in the order of their first document, so that a file has roughly the order of its input.
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    row = np.argsort(np.argsort(first))[inverse]
    order = np.argsort(row, kind="stable")
    return _Segments(
        row=row[order],
        document=document_[order],
        start=start_[order],
        num_tokens=num_tokens[order],
        last=last[order],
    )


def _best_fit(sizes: list[int], *, width: int) -> list[int]:
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


@dataclass(frozen=True, kw_only=True)
class _Runs:
    """Runs of some rows, one after the other, each array [num_runs]."""

    sources: NumPyArray
    """int64: index of the run's first id in all text ids or in `_Ids.short`; meaningless for padding."""
    lengths: NumPyArray
    roles: NumPyArray
    documents: NumPyArray
    rows: NumPyArray

    def compact(self) -> tuple[NumPyArray, NumPyArray, NumPyArray, NumPyArray]:
        """The arrays that the file stores: lengths uint32, roles uint8, documents uint32, and runs of each row."""
        lengths, documents = self.lengths.astype(np.uint32), self.documents.astype(np.uint32)
        return lengths, self.roles, documents, np.bincount(self.rows)


def _runs_header() -> tuple[NumPyArray, NumPyArray, NumPyArray, NumPyArray]:
    """The arrays of `_Runs.compact` for no rows."""
    return np.zeros(0, np.uint32), np.zeros(0, np.uint8), np.zeros(0, np.uint32), np.zeros(0, np.int64)


# Short ids begin with the special ids in this order; boc and eoc are neighbours, so an empty wrapper is one run.
_BOS, _EOS, _BOC, _EOC, _FIRST_META = range(5)


class _Ids:
    """Every id that a run may copy."""

    def __init__(self, special: SpecialIds, *, metadata: DocumentMetadata, text: Sequence[NumPyArray]) -> None:
        head = [special.bos, special.eos, special.boc, special.eoc, *special.meta]
        self.dtype = text[0].dtype
        self.text = text
        self.short = np.concatenate([np.array(head, self.dtype), metadata.ids.astype(self.dtype)])
        """Special ids, meta tokens, metadata."""
        self._chunk_starts = np.cumsum([0, *(len(chunk) for chunk in text[:-1])])

    def place(self, sources: NumPyArray) -> tuple[list[int], list[int]]:
        """The chunk of each text position, and the position in that chunk."""
        if len(self.text) == 1:
            return [0] * len(sources), sources.tolist()
        # Of several chunks with the same begin, all but the last are empty.
        chunks = np.searchsorted(self._chunk_starts, sources, side="right") - 1
        return chunks.tolist(), (sources - self._chunk_starts[chunks]).tolist()


def _runs(
    segments: _Segments,
    *,
    layout: Layout,
    metadata: DocumentMetadata,
    special: SpecialIds,
    text_offsets: NumPyArray,
    width: int,
) -> _Runs:
    """The runs of the segments: bos, wrapper before, text, wrapper after, eos, padding; empty runs are dropped.

    Two segments of one row of 14 ids, prepend: text tu with metadata mn, then text v with an empty wrapper:

                      bos  boc  metadata  eoc  text  eos  pad
        lengths    [[   1    1         2    1     2    1    0 ]    bos | boc | m n | eoc | t u | eos
                    [   1    2         0    0     1    1    1 ]]   bos | boc eoc | v | eos | pad
    """
    row, document, start, last = segments.row, segments.document, segments.start, segments.last
    attached = _attached(layout, first=start == 0, last=last) & metadata.wrapped[document]
    metadata_length = np.where(attached, metadata.lengths[document], 0)
    boc = np.where(attached, np.where(metadata_length > 0, 1, 2), 0)  # 2: boc and eoc of an empty wrapper in one run
    eoc = np.where(attached & (metadata_length > 0), 1, 0)

    meta_tokens = isinstance(layout, MetaTokensLayout)
    metadata_source = _FIRST_META if meta_tokens else _FIRST_META + len(special.meta) + metadata.starts[document]
    # A slot: the source of its ids (one for all segments, or one for each), their number, their role.
    wrapper: list[tuple[Any, NumPyArray, Role]] = [
        (_BOC, boc, Role.WRAPPER),
        (metadata_source, metadata_length, Role.META_TOKEN if meta_tokens else Role.METADATA),
        (_EOC, eoc, Role.WRAPPER),
    ]
    text: list[tuple[Any, NumPyArray, Role]] = [(text_offsets[document] + start, segments.num_tokens, Role.TEXT)]
    body = [*text, *wrapper] if isinstance(layout, AppendLayout) else [*wrapper, *text]
    slots = [(_BOS, np.ones_like(row), Role.BOS), *body, (_EOS, last.astype(np.int64), Role.EOS)]
    used = np.sum([lengths for _, lengths, _ in slots], axis=0)
    slots.append((0, _padding(row, used, width=width), Role.PAD))

    sources = np.stack([np.broadcast_to(source, row.shape) for source, _, _ in slots], axis=1).reshape(-1)
    lengths = np.stack([lengths for _, lengths, _ in slots], axis=1).reshape(-1)
    roles = np.tile(np.array([role for _, _, role in slots], np.uint8), len(row))
    kept = lengths > 0
    documents = np.where(roles == Role.PAD, NO_DOCUMENT, np.repeat(document, len(slots)))
    rows = np.repeat(row, len(slots))
    return _Runs(
        sources=sources[kept], lengths=lengths[kept], roles=roles[kept], documents=documents[kept], rows=rows[kept]
    )


def _attached(layout: Layout, *, first: NumPyArray, last: NumPyArray) -> NumPyArray:
    """bool [num_segments]: `attachment` for all segments at once."""
    rule = attachment(layout)
    outcome = np.array([[rule(False, False), rule(False, True)], [rule(True, False), rule(True, True)]])
    attached: NumPyArray = outcome[first.astype(np.int8), last.astype(np.int8)]
    return attached


def _padding(row: NumPyArray, used: NumPyArray, *, width: int) -> NumPyArray:
    """int64 [num_segments]: ids missing at the row's end, for the row's last segment; 0 for the others.

    Rows [0, 0, 1] with used ids [4, 3, 6] and width 8 give [0, 1, 2].
    """
    filled = np.bincount(row, weights=used).astype(np.int64) if len(row) else np.zeros(0, np.int64)
    closes = np.append(row[1:] != row[:-1], True)[: len(row)]
    return np.where(closes, width - filled[row], 0)


def _gather(ids: _Ids, runs: _Runs, rows: NumPyArray, *, pad: int) -> None:
    """Copy the runs' ids into `rows` [num_rows, width]."""
    flat = rows.reshape(-1)
    flat[:] = pad
    ends = np.cumsum(runs.lengths)
    begins = ends - runs.lengths
    is_text = runs.roles == Role.TEXT
    chunks, places = ids.place(runs.sources[is_text])
    spans = zip(chunks, places, begins[is_text].tolist(), ends[is_text].tolist(), strict=True)
    for chunk, place, begin, end in spans:  # one copy of memory each; an index would take 8 bytes more a token
        flat[begin:end] = ids.text[chunk][place : place + end - begin]
    short = ~is_text & (runs.roles != Role.PAD)
    lengths = runs.lengths[short]
    # lengths [2, 3] -> within [0, 1, 0, 1, 2]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    flat[np.repeat(begins[short], lengths) + within] = ids.short[np.repeat(runs.sources[short], lengths) + within]
