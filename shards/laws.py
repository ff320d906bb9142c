"""The laws of a layout, checked on a packed file as it lies on disk, against the tokens it was packed from.

What is checked: rows are full, with padding at their ends only; every segment starts with bos, belongs to one document
and reads as its layout says; marker ids stand where their roles say; labels are paid as the layout says; every text
token of every document is a label exactly once, in order; metadata stands whole in the segments that should carry it;
eos closes each document once. `colophon verify` and the tests call this.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from colophon.shards.arrow_files import list_values
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import ShardError
from colophon.shards.layouts import AppendLayout, Layout, MetaTokensLayout, PlainLayout
from colophon.shards.metadata import DocumentMetadata
from colophon.shards.packing import attachment
from colophon.shards.reader import PackedFile
from colophon.shards.schema import NO_DOCUMENT, ROLE_NAMES, Role


def layout_of(file: PackedFile) -> Layout:
    """The layout that a packed file says it has.

    Raises:
        ShardError: it says none that this Colophon knows.
    """
    settings = {key: value for key, value in file.info.layout.items() if key != "name"}
    try:
        layout: Layout = TypeAdapter(Layout).validate_python(settings)
    except ValidationError as error:
        raise ShardError(f"{file.path}: damaged layout in the shard metadata: {error.errors()[0]['msg']}") from None
    return layout


def broken_laws(file: PackedFile, tokens: pa.Table, metadata: DocumentMetadata | None = None) -> list[str]:
    """One line for each law that `file` breaks; empty when all hold.

    Args:
        file: the packed file.
        tokens: the token file of the same partition.
        metadata: what the documents' wrappers should hold; without it their content is not compared.
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
    return [*broken, *_text(view, tokens), *(_metadata(view, metadata) if metadata is not None else [])]


def _damage(file: PackedFile) -> str | None:
    """What makes a file's runs unreadable, so that no other law can be checked."""
    offsets, lengths, roles, _ = file.all_runs()
    if len(file) != len(offsets) - 1 or (np.diff(offsets) < 1).any():
        return "a row has no runs"
    if (lengths == 0).any():
        return "a run is empty"
    width = file.info.sequence_length + 1
    per_row = np.add.reduceat(lengths.astype(np.int64), offsets[:-1]) if len(file) else np.zeros(0, np.int64)
    if (per_row != width).any():
        return f"row {int(np.argmax(per_row != width))}: runs do not fill the row"
    if (roles > max(Role)).any():
        return f"unknown role {int(roles.max())}"
    if (roles[offsets[:-1]] != Role.BOS).any():
        return f"row {int(np.argmax(roles[offsets[:-1]] != Role.BOS))} does not start with bos"
    pads = np.flatnonzero(roles == Role.PAD)
    return None if np.isin(pads, offsets[1:] - 1).all() else "padding stands before the end of a row"


class _View:
    """A packed file flattened: runs of all rows one after the other, and each run's segment."""

    def __init__(self, file: PackedFile) -> None:
        self.file = file
        self.layout = layout_of(file)
        _, self.lengths, self.roles, self.documents = file.all_runs()
        self.ids = file.input_ids.reshape(-1)
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
    """Indices start, start + 1, ... of each range, joined."""
    ends = np.cumsum(lengths.astype(np.int64))
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def _weights(view: _View) -> list[str]:
    said, expected = view.file.info.role_weights, view.layout.weights()
    return [
        f"labels of role {name} have weight {said.get(name, 0.0):g}, the layout says {expected[name]:g}"
        for name in ROLE_NAMES
        if said.get(name, 0.0) != expected[name]
    ]


def _marker_lengths(view: _View) -> list[str]:
    """bos and eos are one token; boc and eoc are one each, or one run of two when nothing stands between them."""
    broken = []
    for role in (Role.BOS, Role.EOS):
        if (view.lengths[view.where(role)] != 1).any():
            broken.append(f"a run of role {ROLE_NAMES[role]} is longer than one token")
    wrapper = view.where(Role.WRAPPER)
    pairs = np.bincount(view.segments[wrapper], minlength=view.num_segments)[view.segments[wrapper]]
    if (view.lengths[wrapper] * pairs != 2).any():
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
            broken.append("meta tokens are not the tokenizer's, in order")
    return broken


def _counts(view: _View) -> list[str]:
    found = np.bincount(view.roles, weights=view.lengths, minlength=len(ROLE_NAMES)).astype(np.int64)
    return [
        f"{n} tokens of role {name}, the schema metadata says {view.file.info.num_tokens.get(name)}"
        for name, n in zip(ROLE_NAMES, found.tolist(), strict=True)
        if view.file.info.num_tokens.get(name, 0) != n
    ]


def _segment_shapes(view: _View) -> list[str]:
    """Each segment's runs, written as a string of role digits, must be one of the shapes that the layout allows."""
    digits = (view.roles + ord("0")).astype(np.uint8).tobytes()
    bounds = np.append(np.searchsorted(view.segments, np.arange(view.num_segments)), len(view.segments))
    shapes = {digits[a:b].decode() for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)}
    return [f"a segment reads {_spell(shape)}" for shape in sorted(shapes - _allowed_shapes(view.layout))]


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
    """What is wrong with the documents that runs name, so that nothing can be compared by document."""
    if ((view.documents == NO_DOCUMENT) != (view.roles == Role.PAD)).any():
        return "a run other than padding has no document, or padding has one"
    if ((np.diff(view.documents) != 0) & (np.diff(view.segments) == 0)).any():
        return "a segment's runs name more than one document"
    if (view.documents[view.roles != Role.PAD] >= num_documents).any():
        return "a run names a document that the token file does not have"
    return None


def _text(view: _View, tokens: pa.Table) -> list[str]:
    """Joined by document, segments that eos closes last, the text runs are the token file."""
    offsets, ids = list_values(tokens.column("input_ids"))
    broken = []
    expected_eos = np.flatnonzero(np.diff(offsets) > 0)
    if not np.array_equal(np.sort(view.documents[view.where(Role.EOS)]), expected_eos):
        broken.append("eos does not close each document with text exactly once")
    runs = view.where(Role.TEXT)
    closed = np.bincount(view.segments[view.where(Role.EOS)], minlength=view.num_segments)
    order = np.lexsort((runs, closed[view.segments[runs]], view.documents[runs]))
    if not np.array_equal(view.tokens(runs[order]), ids):
        broken.append("text tokens differ from the token file: lost, repeated or out of order")
    return broken


def _metadata(view: _View, metadata: DocumentMetadata) -> list[str]:
    """Segments that should carry metadata carry all of it, the others none."""
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
    size = np.bincount(view.segments, weights=view.lengths * (view.roles == Role.WRAPPER), minlength=view.num_segments)
    if not np.array_equal(size[segments], np.where(attached, 2, 0)):
        broken.append("a segment lacks its wrapper, or has one it should not have")
    role = Role.META_TOKEN if isinstance(view.layout, MetaTokensLayout) else Role.METADATA
    inner = np.bincount(view.segments, weights=view.lengths * (view.roles == role), minlength=view.num_segments)
    expected = np.where(attached, metadata.lengths[documents], 0)
    if not np.array_equal(inner[segments], expected):
        return [*broken, "a segment's metadata is not as long as it should be"]
    if role is Role.METADATA:
        wanted = metadata.ids[_ranges(metadata.starts[documents], expected)]
        if not np.array_equal(view.tokens(view.where(role)), wanted):
            broken.append("a segment's metadata is not its document's")
    return broken
