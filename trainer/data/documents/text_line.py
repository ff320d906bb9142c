"""The text of a layout's documents as one line, and the parts of rows in which it is packed.

The line joins the text of documents in the order of the input. A position is a token's number in it, from 0. Every
layout of a run that selects the same documents packs the same text tokens (`shards.laws`), so a position is the same
token in all of them, although their rows differ.

Memory: 40 bytes a segment and 16 bytes a document. Cost: a sort of each file's segments.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from hashlib import sha256

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.reader import PackedFile
from colophon.shards.schema import Role
from colophon.trainer.data.packed_layout import PackedLayout


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Segments of a layout: parts of documents, each in one row, with bos, metadata and eos. All int64 [n]."""

    row: NumPyArray
    """The data set's row."""
    first: NumPyArray
    """Place of the segment's first id in its row."""
    length: NumPyArray
    """Ids of the segment, text and others."""
    start: NumPyArray
    """Position of its first text token in the line."""
    num_text: NumPyArray
    """Its text tokens, at least 1."""

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, part: slice | NumPyArray) -> Segments:
        return Segments(**{field.name: getattr(self, field.name)[part] for field in fields(self)})

    @classmethod
    def joined(cls, parts: list[Segments]) -> Segments:
        """All segments of `parts`, in their order."""
        empty = np.empty(0, np.int64)
        columns = {
            field.name: np.concatenate([empty, *(getattr(part, field.name) for part in parts)]) for field in fields(cls)
        }
        return cls(**columns)


@dataclass(frozen=True, kw_only=True)
class TextLine:
    """The line of some documents of a layout."""

    packed: PackedLayout
    all_segments: Segments
    """In the order of the line."""
    documents: NumPyArray
    """int64 [num_documents]: the row of each document in its partition."""
    document_starts: NumPyArray
    """int64 [num_documents]: the position of its first token."""
    file_starts: NumPyArray
    """int64 [num_files + 1]: the number of documents before each of the layout's files."""
    num_tokens: int

    @classmethod
    def of(cls, packed: PackedLayout) -> TextLine:
        """The line of all documents of a layout that have text, of either packing method."""
        parts, documents, first_row = [], [np.empty(0, np.int64)], 0
        for file in packed.dataset.files:
            segments, of_segments = _segments(file, first_row=first_row)
            parts.append(segments)
            documents.append(of_segments)
            first_row += len(file)
        joined, files = Segments.joined(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        all_documents = np.concatenate(documents)
        is_first = (np.diff(all_documents, prepend=-1) != 0) | (np.diff(files, prepend=-1) != 0)
        ends = np.cumsum(joined.num_text)
        starts = ends - joined.num_text
        return cls(
            packed=packed,
            all_segments=replace(joined, start=starts),
            documents=all_documents[is_first],
            document_starts=starts[is_first],
            file_starts=np.searchsorted(files[is_first], np.arange(len(parts) + 1)),
            num_tokens=int(joined.num_text.sum()),
        )

    @property
    def lengths(self) -> NumPyArray:
        """int64 [num_documents]: text tokens of each document."""
        lengths: NumPyArray = np.diff(self.document_starts, append=self.num_tokens)
        return lengths

    @cached_property
    def digest(self) -> str:
        """sha256 of the documents' places in the run and of their lengths; equal for all layouts of a run."""
        digest = sha256()
        for partition, first, last in zip(self.packed.partitions, *_bounds(self.file_starts), strict=True):
            digest.update(f"{partition} {last - first} ".encode())
            digest.update(self.documents[first:last].astype("<i8").tobytes())
        digest.update(self.lengths.astype("<i8").tobytes())
        return digest.hexdigest()

    def only(self, kept: NumPyArray) -> TextLine:
        """The line of the documents that `kept` bool [num_documents] marks; positions count from 0 again."""
        of_segments = np.searchsorted(self.document_starts, self.all_segments.start, side="right") - 1
        segments = self.all_segments[kept[of_segments]]
        lengths = self.lengths[kept]
        return replace(
            self,
            all_segments=replace(segments, start=np.cumsum(segments.num_text) - segments.num_text),
            documents=self.documents[kept],
            document_starts=np.cumsum(lengths) - lengths,
            file_starts=np.concatenate([[0], np.cumsum(kept)])[self.file_starts],
            num_tokens=int(lengths.sum()),
        )

    def by_partition(self) -> dict[str, NumPyArray]:
        """The documents of each partition that has any, int64, ascending."""
        bounds = zip(self.packed.partitions, *_bounds(self.file_starts), strict=True)
        return {partition: self.documents[first:last] for partition, first, last in bounds if first < last}

    def segments(self, first: int, last: int) -> Segments:
        """The segments that have any of the positions from `first` to before `last`, in the order of the line."""
        starts = self.all_segments.start
        begin = int(np.searchsorted(starts, first, side="right")) - 1
        return self.all_segments[max(begin, 0) : int(np.searchsorted(starts, last, side="left"))]

    def blocks(self, size: int) -> NumPyArray:
        """int64 [num_blocks]: the starts of blocks of whole documents, one block for the documents that begin within
        each `size` positions.

        Documents that begin at 0, 30, 90 and 250, and a size of 100, give blocks that begin at 0 and 250.
        """
        is_first = np.diff(self.document_starts // size, prepend=-1) != 0
        starts: NumPyArray = self.document_starts[is_first]
        return starts


def _bounds(starts: NumPyArray) -> tuple[list[int], list[int]]:
    return starts[:-1].tolist(), starts[1:].tolist()


def _segments(file: PackedFile, *, first_row: int) -> tuple[Segments, NumPyArray]:
    """The segments of a file in the order of the input, and their documents int64 [n].

    The segments of a document are in the order of their rows, but the one that eos closes is its last: `best_fit` may
    place the last part earlier.
    """
    offsets, lengths, roles, documents = file.all_runs()
    opens = (roles == Role.BOS) | (roles == Role.PAD)
    opens[offsets[:-1]] = True
    runs = np.flatnonzero(opens)
    if not len(runs):
        return Segments.joined([]), np.empty(0, np.int64)
    ends = np.cumsum(lengths, dtype=np.int64)
    rows = np.repeat(np.arange(len(file)), np.diff(offsets))[runs]
    is_text = roles == Role.TEXT
    found = Segments(
        row=rows + first_row,
        first=(ends - lengths)[runs] - rows * file.input_ids.shape[1],
        length=np.add.reduceat(lengths, runs, dtype=np.int64),
        start=np.zeros(len(runs), np.int64),
        num_text=np.add.reduceat(np.where(is_text, lengths, 0), runs, dtype=np.int64),
    )
    closed = np.logical_or.reduceat(roles == Role.EOS, runs)
    with_text = np.flatnonzero(found.num_text)
    of_segments = documents[runs].astype(np.int64)[with_text]
    order = np.lexsort((closed[with_text], of_segments))  # stable: by document, then closed, then row
    return found[with_text[order]], of_segments[order]
