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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import Layout, MetaTokensLayout, PlainLayout
from colophon.shards.metadata import DocumentMetadata
from colophon.shards.packing.methods import Overhead, PackingMethod, plan_best_fit, plan_concat
from colophon.shards.packing.runs import SourceIds, gather, no_runs, segment_runs
from colophon.shards.schema import ROLE_NAMES, RoleName, SpecialIds

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
    """`documents`, `documents_empty`, `documents_cut`, `segments`, those of `DocumentMetadata.counts`, and
    `documents_excluded` with a selection."""


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
    kept: NumPyArray | None = None,
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
        kept: bool [num_documents]: the documents to arrange; the others are excluded and counted. None: all.
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
    num_tokens = np.diff(text_offsets)
    lengths = num_tokens if kept is None else np.where(kept, num_tokens, 0)  # of no tokens nothing is arranged
    plan = plan_concat if method == "concat" else plan_best_fit
    segments = plan(lengths.tolist(), overhead=Overhead(layout, metadata), width=width)
    ids = SourceIds(special, metadata=metadata, text=[text_ids] if isinstance(text_ids, np.ndarray) else text_ids)
    rows = allocate((segments.num_rows, width), ids.dtype)
    runs = [no_runs()]
    for first, block in segments.blocks(max(_GATHER_TOKENS // width, 1)):
        found = segment_runs(
            block, layout=layout, metadata=metadata, special=special, text_offsets=text_offsets, width=width
        )
        gather(ids, found, rows[first : first + block.num_rows], pad=special.pad)
        runs.append(found.compact())
    run_lengths, run_roles, run_documents, runs_per_row = map(np.concatenate, zip(*runs, strict=True))
    per_role = np.bincount(run_roles, weights=run_lengths, minlength=len(ROLE_NAMES))
    counts = {
        "documents": len(lengths),
        "documents_empty": int((num_tokens == 0).sum()),
        "documents_cut": int(np.count_nonzero(segments.last & (segments.start > 0))),
        "segments": len(segments.row),
        **metadata.counts,
        **({} if kept is None else {"documents_excluded": int(np.count_nonzero(~kept))}),
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
