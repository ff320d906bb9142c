"""Packing: a partition's tokens and metadata become fixed-length sequences, in one layout.

Three steps, each a function of arrays:

1. *Plan*: which slice of which document goes into which row. One Python step a segment, so the cost is a few
   microseconds for every thousand tokens or so. `concat` fills rows in document order and cuts documents where the
   row ends; `best_fit` cuts only documents longer than a row and puts the rest into the fullest row that has room
   (best-fit decreasing; Ding et al., "Fewer Truncations Improve Language Modeling", 2404.10830).
2. *Runs*: the plan's segments become runs (where the ids come from, how many, their role, their document).
3. *Gather*: runs are copied out of one pool of ids (special ids, metadata, text), vectorised, about 1M tokens a time.

The runs of step 2 are what stands in the file, so the mask cannot differ from the ids.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from shards.layouts import AppendLayout, Layout, MetaTokensLayout, PlainLayout
from shards.metadata import DocumentMetadata
from shards.schema import NO_DOCUMENT, ROLE_NAMES, Role, RoleName, SpecialIds

NumPyArray = np.ndarray[Any, Any]
PackingMethod = Literal["concat", "best_fit"]
_GATHER_TOKENS = 1 << 20


class Segment(NamedTuple):
    """A document's part in one row: `num_tokens` text tokens from `start`."""

    row: int
    document: int
    start: int
    num_tokens: int
    last: bool


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One partition in one layout; the arrays are those of `shards.files.packed_table`."""

    input_ids: NumPyArray
    run_lengths: NumPyArray
    run_roles: NumPyArray
    run_documents: NumPyArray
    runs_per_row: NumPyArray
    num_tokens: dict[RoleName, int]
    counts: dict[str, int]
    """`documents`, `documents_empty`, `documents_cut`, `segments` and what `DocumentMetadata.counts` says."""


def smallest_row(layout: Layout) -> int:
    """Ids that the longest segment of one text token takes in `layout`: a row must hold as many.

    bos, boc, metadata, eoc, one text token, eos.
    """
    if isinstance(layout, PlainLayout):
        return 3
    longest = layout.num_meta_tokens if isinstance(layout, MetaTokensLayout) else layout.max_metadata_tokens
    return longest + 5


def pack(
    layout: Layout,
    *,
    text_offsets: NumPyArray,
    text_ids: NumPyArray,
    metadata: DocumentMetadata,
    special: SpecialIds,
    sequence_length: int,
    method: PackingMethod = "concat",
) -> Packed:
    """Arrange a partition's documents in rows of `sequence_length + 1` ids.

    Args:
        layout: where metadata stands.
        text_offsets: int64 [num_documents + 1] into `text_ids`.
        text_ids: uint16 or uint32 [num_text_tokens]; the result has its dtype, which must hold the special ids.
        metadata: what stands in each document's wrapper.
        special: ids of the special tokens.
        sequence_length: inputs of a row.
        method: `concat` or `best_fit`.

    Raises:
        ValueError: the rows are too short for the layout, or the tokenizer has fewer meta tokens than it asks for.
    """
    width = sequence_length + 1
    if isinstance(layout, MetaTokensLayout) and layout.num_meta_tokens > len(special.meta):
        raise ValueError(f"the tokenizer has {len(special.meta)} meta tokens, the layout asks {layout.num_meta_tokens}")
    if width < smallest_row(layout):
        raise ValueError(f"sequence_length must be at least {smallest_row(layout) - 1} for this layout")
    lengths = np.diff(text_offsets)
    overhead = _Overhead(layout, metadata)
    plan = _plan_concat if method == "concat" else _plan_best_fit
    segments = plan(lengths.tolist(), overhead=overhead, width=width)
    runs = _runs(segments, layout=layout, metadata=metadata, special=special, text_offsets=text_offsets, width=width)
    pool = _pool(special, metadata=metadata, text_ids=text_ids, width=width)
    per_role = np.bincount(runs.roles, weights=runs.lengths, minlength=len(ROLE_NAMES))
    counts = {
        "documents": len(lengths),
        "documents_empty": int((lengths == 0).sum()),
        "documents_cut": sum(segment.last and segment.start > 0 for segment in segments),
        "segments": len(segments),
        **metadata.counts,
    }
    return Packed(
        input_ids=_gather(pool, runs, width=width),
        run_lengths=runs.lengths,
        run_roles=runs.roles,
        run_documents=runs.documents,
        runs_per_row=np.bincount(runs.rows),
        num_tokens={name: int(n) for name, n in zip(ROLE_NAMES, per_role, strict=True)},
        counts=counts,
    )


class _Overhead:
    """How many ids of a segment are not text: bos, eos on the last one, and the wrapper where the layout puts it."""

    def __init__(self, layout: Layout, metadata: DocumentMetadata) -> None:
        self._wrapper: list[int] = np.where(metadata.wrapped, metadata.lengths + 2, 0).tolist()
        self.attached = attachment(layout)

    def __call__(self, document: int, *, first: bool, last: bool) -> int:
        return 1 + last + (self._wrapper[document] if self.attached(first, last) else 0)


def attachment(layout: Layout) -> Callable[[bool, bool], bool]:
    """Whether a segment carries the document's metadata, from (is the document's first, is its last)."""
    if isinstance(layout, PlainLayout):
        return lambda first, last: False
    if layout.segments == "first":
        return lambda first, last: first
    if layout.segments == "last":
        return lambda first, last: last
    return lambda first, last: True


def _plan_concat(lengths: list[int], *, overhead: _Overhead, width: int) -> list[Segment]:
    """Fill rows in document order; a document goes on in the next row where this one ends.

    A segment that is not the last takes what fits but leaves a token for the next, so that eos always has text before
    it in its segment.
    """
    segments: list[Segment] = []
    row, room = 0, width
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            taken, used = _take(document, start=start, length=length, room=room, overhead=overhead)
            if taken == 0:
                row, room = row + 1, width
                continue
            last = start + taken == length
            segments.append(Segment(row=row, document=document, start=start, num_tokens=taken, last=last))
            start += taken
            room -= used
            if room == 0:
                row, room = row + 1, width
    return segments


def _take(document: int, *, start: int, length: int, room: int, overhead: _Overhead) -> tuple[int, int]:
    """Text tokens of the document's next segment in `room` ids, and the ids that the segment fills; 0 if none fits."""
    left = length - start
    closing = overhead(document, first=start == 0, last=True)
    if left + closing <= room:
        return left, left + closing
    opening = overhead(document, first=start == 0, last=False)
    taken = max(min(room - opening, left - 1), 0)
    return taken, taken + opening


def _plan_best_fit(lengths: list[int], *, overhead: _Overhead, width: int) -> list[Segment]:
    """Documents longer than a row fill rows of their own; what is left of each is placed longest first."""
    whole_rows: list[list[Segment]] = []
    rest: list[tuple[int, int, int]] = []  # ids needed, document, start
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            taken, used = _take(document, start=start, length=length, room=width, overhead=overhead)
            if start + taken == length:
                rest.append((used, document, start))
            else:
                segment = Segment(row=-1, document=document, start=start, num_tokens=taken, last=False)
                whole_rows.append([segment])
            start += taken
    bins = [
        [Segment(row=-1, document=d, start=s, num_tokens=lengths[d] - s, last=True) for d, s in contents]
        for contents in _best_fit_decreasing(rest, width=width)
    ]
    # Rows stand in the order of their first document, so that a file reads roughly like its input.
    rows = sorted(whole_rows + bins, key=lambda row: (row[0].document, row[0].start))
    return [
        Segment(row=i, document=s.document, start=s.start, num_tokens=s.num_tokens, last=s.last)
        for i, row in enumerate(rows)
        for s in row
    ]


def _best_fit_decreasing(items: list[tuple[int, int, int]], *, width: int) -> Iterator[list[tuple[int, int]]]:
    """Bins of (document, start), each in document order; O(n log n + n · distinct capacities moved)."""
    open_bins: dict[int, list[list[tuple[int, int]]]] = {}
    capacities: list[int] = []  # sorted keys of open_bins
    bins: list[list[tuple[int, int]]] = []
    for size, document, start in sorted(items, key=lambda item: (-item[0], item[1])):
        at = bisect_left(capacities, size)
        chosen: list[tuple[int, int]] = []
        if at == len(capacities):
            capacity = width
            bins.append(chosen)
        else:
            capacity = capacities[at]
            chosen = open_bins[capacity].pop()
            if not open_bins[capacity]:
                del open_bins[capacity], capacities[at]
        chosen.append((document, start))
        left = capacity - size
        if left:
            if left not in open_bins:
                insort(capacities, left)
            open_bins.setdefault(left, []).append(chosen)
    return (sorted(contents) for contents in bins)


@dataclass(frozen=True, kw_only=True)
class _Runs:
    """Runs of all rows, one after the other, each array [num_runs]."""

    sources: NumPyArray
    """int64: where the run's ids begin in the pool."""
    lengths: NumPyArray
    roles: NumPyArray
    documents: NumPyArray
    rows: NumPyArray


# The pool begins with the special ids in this order; boc and eoc stand together, so that an empty wrapper is one run.
_BOS, _EOS, _BOC, _EOC, _FIRST_META = range(5)


def _pool(special: SpecialIds, *, metadata: DocumentMetadata, text_ids: NumPyArray, width: int) -> NumPyArray:
    """Every id that a run may copy: special ids, meta tokens, a row of padding, metadata, text."""
    head = [special.bos, special.eos, special.boc, special.eoc, *special.meta, *[special.pad] * width]
    return np.concatenate([np.array(head, text_ids.dtype), metadata.ids.astype(text_ids.dtype), text_ids])


def _runs(
    segments: list[Segment],
    *,
    layout: Layout,
    metadata: DocumentMetadata,
    special: SpecialIds,
    text_offsets: NumPyArray,
    width: int,
) -> _Runs:
    """Lay the segments out: bos, wrapper before, text, wrapper after, eos, padding; empty runs are left out."""
    table = np.array([(s.row, s.document, s.start, s.num_tokens, s.last) for s in segments], np.int64).reshape(-1, 5)
    row, document, start, num_tokens, last = table.T
    attached = _attached(layout, first=start == 0, last=last.astype(bool)) & metadata.wrapped[document]
    metadata_length = np.where(attached, metadata.lengths[document], 0)
    boc = np.where(attached, np.where(metadata_length > 0, 1, 2), 0)  # 2: boc and eoc of an empty wrapper in one run
    eoc = np.where(attached & (metadata_length > 0), 1, 0)

    first_pad = _FIRST_META + len(special.meta)
    first_metadata = first_pad + width
    first_text = first_metadata + len(metadata.ids)
    meta_tokens = isinstance(layout, MetaTokensLayout)
    metadata_source = _FIRST_META if meta_tokens else first_metadata + metadata.starts[document]
    # A slot: where its ids begin in the pool (one place, or one for each segment), how many, and what they are.
    wrapper: list[tuple[Any, NumPyArray, Role]] = [
        (_BOC, boc, Role.WRAPPER),
        (metadata_source, metadata_length, Role.META_TOKEN if meta_tokens else Role.METADATA),
        (_EOC, eoc, Role.WRAPPER),
    ]
    text: list[tuple[Any, NumPyArray, Role]] = [(first_text + text_offsets[document] + start, num_tokens, Role.TEXT)]
    body = [*text, *wrapper] if isinstance(layout, AppendLayout) else [*wrapper, *text]
    slots = [(_BOS, np.ones_like(row), Role.BOS), *body, (_EOS, last, Role.EOS)]
    used = np.sum([lengths for _, lengths, _ in slots], axis=0)
    slots.append((first_pad, _padding(row, used, width=width), Role.PAD))

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
    """int64 [num_segments]: ids missing at the end of the row, behind the row's last segment."""
    filled = np.bincount(row, weights=used).astype(np.int64) if len(row) else np.zeros(0, np.int64)
    closes = np.append(row[1:] != row[:-1], True)[: len(row)]
    return np.where(closes, width - filled[row], 0)


def _gather(pool: NumPyArray, runs: _Runs, *, width: int) -> NumPyArray:
    """Copy the runs' ids out of the pool: [num_rows, width] of the pool's dtype."""
    ends = np.cumsum(runs.lengths)
    total = int(ends[-1]) if len(ends) else 0
    out = np.empty(total, pool.dtype)
    # Blocks of about a million tokens keep the index in the cache and the peak of memory small.
    cuts = np.searchsorted(ends, np.arange(_GATHER_TOKENS, total, _GATHER_TOKENS)).tolist()
    for begin, end in zip([0, *cuts], [*cuts, len(ends)], strict=True):
        if begin == end:
            continue
        lengths, to = runs.lengths[begin:end], int(ends[begin] - runs.lengths[begin])
        size = int(ends[end - 1]) - to
        shift = runs.sources[begin:end] - (ends[begin:end] - lengths - to)
        out[to : to + size] = pool[np.repeat(shift, lengths) + np.arange(size)]
    return out.reshape(-1, width)
