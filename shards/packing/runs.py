"""Packing, steps 2 and 3: the runs of planned segments, and the copies of their ids into rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import AppendLayout, Layout, MetaTokensLayout
from colophon.shards.metadata import DocumentMetadata
from colophon.shards.packing.methods import Segments, attachment
from colophon.shards.schema import NO_DOCUMENT, Role, SpecialIds


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs of some rows, one after the other, each array [num_runs]."""

    sources: NumPyArray
    """int64: index of the run's first id in all text ids or in `SourceIds.short`; meaningless for padding."""
    lengths: NumPyArray
    roles: NumPyArray
    documents: NumPyArray
    rows: NumPyArray

    def compact(self) -> tuple[NumPyArray, NumPyArray, NumPyArray, NumPyArray]:
        """The arrays that the file stores: lengths uint32, roles uint8, documents uint32, and runs of each row."""
        lengths, documents = self.lengths.astype(np.uint32), self.documents.astype(np.uint32)
        return lengths, self.roles, documents, np.bincount(self.rows)


def no_runs() -> tuple[NumPyArray, NumPyArray, NumPyArray, NumPyArray]:
    """The arrays of `Runs.compact` for no rows."""
    return np.zeros(0, np.uint32), np.zeros(0, np.uint8), np.zeros(0, np.uint32), np.zeros(0, np.int64)


# Short ids begin with the special ids in this order; boc and eoc are neighbours, so an empty wrapper is one run.
_BOS, _EOS, _BOC, _EOC, _FIRST_META = range(5)


class SourceIds:
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


def segment_runs(
    segments: Segments,
    *,
    layout: Layout,
    metadata: DocumentMetadata,
    special: SpecialIds,
    text_offsets: NumPyArray,
    width: int,
) -> Runs:
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
    return Runs(
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


def gather(ids: SourceIds, runs: Runs, rows: NumPyArray, *, pad: int) -> None:
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
