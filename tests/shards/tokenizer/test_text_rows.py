"""Sinks that gather ids, and rows cut into parts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from colophon.shards.tokenizer.text_rows import IdSink, cut_rows, text_rows


@given(
    chunks=st.lists(st.lists(st.integers(0, 60_000), max_size=3000), max_size=6), first_id=st.sampled_from([0, 1000])
)
def test_a_sink_keeps_its_ids_in_order(chunks: list[list[int]], first_id: int) -> None:
    sink = IdSink(np.dtype(np.uint16), expected=0)
    for chunk in chunks:
        sink.extend(np.array(chunk, dtype=np.uint32), first_id=first_id)
    lists = sink.lists(np.array([len(chunk) for chunk in chunks], dtype=np.int64))
    assert lists.to_pylist() == [[i + first_id for i in chunk] for chunk in chunks]


def test_rows_cut_into_parts_worked_out_by_hand() -> None:
    rows = text_rows(pa.array(["abcd", "the cats!", "xy"]))
    parts = cut_rows(rows, limit=6)
    assert parts.bounds.tolist() == [0, 4, 7, 13, 15]
    assert parts.first.tolist() == [0, 1, 3]
    assert parts.uncut.tolist() == [False, False, False]


@given(
    texts=st.lists(st.one_of(st.none(), st.text(st.sampled_from("ab é"), max_size=40)), max_size=6),
    limit=st.integers(1, 12),
)
def test_parts_cover_their_rows_and_are_no_longer_than_the_limit(texts: list[str | None], limit: int) -> None:
    rows = text_rows(pa.array(texts, pa.string()))
    parts = cut_rows(rows, limit=limit)
    ends = [*parts.first.tolist(), parts.bounds.size - 1]
    for row, text in enumerate(texts):
        bounds = parts.bounds[ends[row] : ends[row + 1] + 1]
        pieces = [bytes(rows.data[a:b]) for a, b in pairwise(bounds)]
        assert b"".join(pieces) == (text or "").encode()
        assert all(piece.startswith(b" ") for piece in pieces[1:])
        if parts.uncut[row]:
            assert len(pieces) == 1 and len(pieces[0]) > limit
        else:
            assert all(len(piece) <= limit for piece in pieces)
