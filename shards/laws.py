"""The laws of a layout, checked on a packed file on disk against the tokens from which it was packed.

Rows are full, with padding at their ends only. Every segment starts with bos, belongs to one document and has a shape
that its layout allows. Special ids have the roles of their markers. Loss weights are those of the layout. Every text
token of every document is a label exactly once, in order. Segments that carry metadata carry all of it. eos closes each
document once. `colophon verify` and the tests call this.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from colophon.shards.arrow_files import list_values
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import AppendLayout, Layout, MetaTokensLayout, PlainLayout, parse_layout
from colophon.shards.metadata import DocumentMetadata
from colophon.shards.packing.methods import attachment
from colophon.shards.reader import PackedFile
from colophon.shards.schema import NO_DOCUMENT, ROLE_NAMES, Role


def broken_laws(
    file: PackedFile, tokens: pa.Table, metadata: DocumentMetadata | None = None, *, kept: NumPyArray | None = None
) -> list[str]:
    """One line for each law that `file` breaks; empty if all hold.

    Args:
        file: the packed file.
        tokens: the token file of the same partition.
        metadata: the metadata that the documents should have; None skips this comparison.
        kept: bool [documents]: those that the layout should have; None: all, or those of the file itself if its layout
            has conditions, so that only these documents are compared.

    Raises:
        ShardError: the schema metadata does not hold a valid layout.
    """
    damage = _damage(file)
    if damage:
        return [damage]
    view = _View(file)
    broken = [
        *_weights(view),
        *_marker_lengths(view),
        *_marker_ids(view),
        *_counts(view),
        *_segment_shapes(view),
    ]
    damage = _document_damage(view, num_documents=len(tokens))
    if damage:
        return [*broken, damage]
    return [*broken, *_text(view, tokens, kept=kept), *(_metadata(view, metadata) if metadata is not None else [])]


def _damage(file: PackedFile) -> str | None:
    """The damage that makes a file's runs unusable, so that no other law can be checked; None if there is none."""
    offsets, lengths, roles, _ = file.all_runs()
    if len(file) != len(offsets) - 1 or (np.diff(offsets) < 1).any():
        return "a row has no runs"
    if (lengths == 0).any():
        return "a run is empty"
    width = file.info.sequence_length + 1
    per_row = np.add.reduceat(lengths.astype(np.int64), offsets[:-1]) if len(file) else np.zeros(0, np.int64)
    if (per_row != width).any():
        return f"row {int(np.argmax(per_row != width))}: the runs' lengths do not sum to the row's"
    if (roles > max(Role)).any():
        return f"unknown role {int(roles.max())}"
    if (roles[offsets[:-1]] != Role.BOS).any():
        return f"row {int(np.argmax(roles[offsets[:-1]] != Role.BOS))} does not start with bos"
    pads = np.flatnonzero(roles == Role.PAD)
    return None if np.isin(pads, offsets[1:] - 1).all() else "padding before the end of a row"


class _View:
    """A packed file flattened: runs of all rows one after the other, and each run's segment."""

    def __init__(self, file: PackedFile) -> None:
        self.file = file
        self.layout = parse_layout(file.info.layout, where=file.path)
        _, self.lengths, self.roles, self.documents = file.all_runs()
        self.ids = np.asarray(file.input_ids).reshape(-1)
        self.starts = np.cumsum(self.lengths.astype(np.int64)) - self.lengths
        self.segments = np.cumsum((self.roles == Role.BOS) | (self.roles == Role.PAD)) - 1
        self.num_segments = int(self.segments[-1]) + 1 if len(self.segments) else 0

    def tokens(self, runs: NumPyArray) -> NumPyArray:
        """The ids of the runs numbered `runs`, joined."""
        return self.ids[_ranges(self.starts[runs], self.lengths[runs])]

    def where(self, *roles: Role) -> NumPyArray:
        """Numbers of the runs with one of `roles`."""
        return np.flatnonzero(np.isin(self.roles, roles))


def _ranges(starts: NumPyArray, lengths: NumPyArray) -> NumPyArray:
    """Indices start, start + 1, ... of each range, joined: [5, 20] and [2, 3] give [5, 6, 20, 21, 22]."""
    ends = np.cumsum(lengths.astype(np.int64))
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def _weights(view: _View) -> list[str]:
    recorded, expected = view.file.info.role_weights, view.layout.weights()
    return [
        f"labels of role {name} have loss weight {recorded.get(name, 0.0):g}; the layout's is {expected[name]:g}"
        for name in ROLE_NAMES
        if recorded.get(name, 0.0) != expected[name]
    ]


def _marker_lengths(view: _View) -> list[str]:
    """Runs of bos and eos have one token; boc and eoc are two runs of one token, or one run of two without metadata."""
    broken = []
    for role in (Role.BOS, Role.EOS):
        if (view.lengths[view.where(role)] != 1).any():
            broken.append(f"a run of role {ROLE_NAMES[role]} is longer than one token")
    wrapper = view.where(Role.WRAPPER)
    runs_in_segment = np.bincount(view.segments[wrapper], minlength=view.num_segments)[view.segments[wrapper]]
    # [boc] [eoc]: each of 1 token, 2 runs; [boc eoc]: 2 tokens, 1 run
    if (view.lengths[wrapper] * runs_in_segment != 2).any():
        broken.append("a wrapper is not one boc and one eoc")
    return broken


def _marker_ids(view: _View) -> list[str]:
    special = view.file.info.tokenizer.special
    broken = []
    for role, expected in ((Role.BOS, special.bos), (Role.EOS, special.eos), (Role.PAD, special.pad)):
        if (view.tokens(view.where(role)) != expected).any():
            broken.append(f"a token of role {ROLE_NAMES[role]} is not id {expected}")
    wrapper = view.where(Role.WRAPPER)
    empty = view.lengths[wrapper] == 2
    # A wrapper run after metadata is eoc; any other is boc.
    opens = empty | ~np.isin(view.roles[wrapper - 1], (Role.METADATA, Role.META_TOKEN))
    expected_wrapper = np.repeat(np.where(opens, special.boc, special.eoc), view.lengths[wrapper])
    # The second id of an empty wrapper is eoc.
    expected_wrapper[np.cumsum(view.lengths[wrapper])[empty] - 1] = special.eoc
    if (view.tokens(wrapper) != expected_wrapper).any():
        broken.append(f"a wrapper is not boc {special.boc} and eoc {special.eoc}")
    meta = view.where(Role.META_TOKEN)
    if len(meta):
        size = view.layout.num_meta_tokens if isinstance(view.layout, MetaTokensLayout) else 0
        wrong = (view.lengths[meta] != size).any()
        if wrong or (view.tokens(meta) != np.tile(np.array(special.meta[:size]), len(meta))).any():
            broken.append("meta tokens are not those of the tokenizer, in order")
    return broken


def _counts(view: _View) -> list[str]:
    found = np.bincount(view.roles, weights=view.lengths, minlength=len(ROLE_NAMES)).astype(np.int64)
    return [
        f"{n} tokens of role {name}; the schema metadata has {view.file.info.num_tokens.get(name)}"
        for name, n in zip(ROLE_NAMES, found.tolist(), strict=True)
        if view.file.info.num_tokens.get(name, 0) != n
    ]


def _segment_shapes(view: _View) -> list[str]:
    """Each segment's shape, its roles as digits (bos text eos is "162"), must be one that the layout allows."""
    digits = (view.roles + ord("0")).astype(np.uint8).tobytes()
    bounds = np.append(np.searchsorted(view.segments, np.arange(view.num_segments)), len(view.segments))
    shapes = {digits[a:b].decode() for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)}
    return [f"a segment has the roles {_spell(shape)}" for shape in sorted(shapes - _allowed_shapes(view.layout))]


def _allowed_shapes(layout: Layout) -> set[str]:
    bos, text, eos, wrapper = (str(int(r)) for r in (Role.BOS, Role.TEXT, Role.EOS, Role.WRAPPER))
    inner = str(int(Role.META_TOKEN if isinstance(layout, MetaTokensLayout) else Role.METADATA))
    wrappers = [""] if isinstance(layout, PlainLayout) else ["", wrapper, wrapper + inner + wrapper]
    shapes = {str(int(Role.PAD))}
    for w in wrappers:
        body = text + w if isinstance(layout, AppendLayout) else w + text
        shapes |= {bos + body, bos + body + eos}
    return shapes


def _spell(shape: str) -> str:
    return " ".join(ROLE_NAMES[int(digit)] for digit in shape)


def _document_damage(view: _View, *, num_documents: int) -> str | None:
    """The damage in the runs' documents that prevents a comparison by document; None if there is none."""
    if ((view.documents == NO_DOCUMENT) != (view.roles == Role.PAD)).any():
        return "a run other than padding has no document, or padding has one"
    if ((np.diff(view.documents) != 0) & (np.diff(view.segments) == 0)).any():
        return "the runs of a segment have more than one document"
    if (view.documents[view.roles != Role.PAD] >= num_documents).any():
        return "a run's document is not in the token file"
    return None


def _text(view: _View, tokens: pa.Table, *, kept: NumPyArray | None) -> list[str]:
    """The text runs, joined by document, must equal the token file; eos must close each document once.

    A document's segments are ordered by position, but the segment that eos closes is its last: best_fit may place the
    rest of a long document in an earlier row.
    """
    offsets, ids = list_values(tokens.column("input_ids"))
    lengths, broken = np.diff(offsets), []
    runs = view.where(Role.TEXT)
    if kept is None:
        present = np.bincount(view.documents[runs], minlength=len(lengths)) > 0
        kept = present if view.layout.where else np.ones(len(lengths), bool)
    ids = ids[np.repeat(kept, lengths)] if not kept.all() else ids
    expected_eos = np.flatnonzero(np.where(kept, lengths, 0) > 0)
    if not np.array_equal(np.sort(view.documents[view.where(Role.EOS)]), expected_eos):
        broken.append("eos does not close each document with text exactly once")
    closed = np.bincount(view.segments[view.where(Role.EOS)], minlength=view.num_segments)
    order = np.lexsort((runs, closed[view.segments[runs]], view.documents[runs]))
    if not np.array_equal(view.tokens(runs[order]), ids):
        broken.append("text tokens differ from the token file: missing, repeated or out of order")
    return broken


def _metadata(view: _View, metadata: DocumentMetadata) -> list[str]:
    """Segments that should carry metadata must carry all of it, the others none."""
    # One text run for each segment. Document 7 in segments 0 and 3, eos in 3: documents [7, 7], last [False, True],
    # first [True, False]; with segments = "first" the rule gives attached [True, False].
    text = view.where(Role.TEXT)
    segments, documents = view.segments[text], view.documents[text]
    last = np.bincount(view.segments[view.where(Role.EOS)], minlength=view.num_segments)[segments] > 0
    order = np.lexsort((text, last, documents))
    first = np.zeros(len(text), bool)
    first[order] = np.append(True, np.diff(documents[order].astype(np.int64)) != 0)[: len(order)]
    rule = attachment(view.layout)
    attached = np.array([rule(bool(f), bool(w)) for f, w in zip(first, last, strict=True)], bool)
    attached &= metadata.wrapped[documents]
    broken = []
    # Tokens of each segment: bos [boc] m m [eoc] text -> 2 of role wrapper, 2 of role metadata
    size = np.bincount(view.segments, weights=view.lengths * (view.roles == Role.WRAPPER), minlength=view.num_segments)
    if not np.array_equal(size[segments], np.where(attached, 2, 0)):
        broken.append("a segment lacks its wrapper, or has one it should not have")
    role = Role.META_TOKEN if isinstance(view.layout, MetaTokensLayout) else Role.METADATA
    inner = np.bincount(view.segments, weights=view.lengths * (view.roles == role), minlength=view.num_segments)
    expected = np.where(attached, metadata.lengths[documents], 0)
    if not np.array_equal(inner[segments], expected):
        return [*broken, "a segment's metadata has the wrong length"]
    if role is Role.METADATA:
        wanted = metadata.ids[_ranges(metadata.starts[documents], expected)]
        if not np.array_equal(view.tokens(view.where(role)), wanted):
            broken.append("a segment's metadata is not that of its document")
    return broken
