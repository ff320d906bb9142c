"""Segments of packed rows arranged in new rows, for updates that train on given documents in whatever rows they are.

A segment has its own bos, metadata and eos, and with a document mask attends to nothing else, so its losses do not
depend on its row. Segments are placed by best-fit decreasing, as the packing method `best_fit` places documents; the
rest of a row is padding. Of a segment that two updates share, each has the whole, as context, and labels only its own
part of the text: the other labels have weight 0 and the role of padding, so they count nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.packing.methods import best_fit_bins
from colophon.shards.reader import PackedDataset, PackedRows
from colophon.shards.schema import NO_DOCUMENT, Role
from colophon.trainer.data.document_numbers import DocumentNumbers
from colophon.trainer.data.documents.text_line import Segments


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """Segments in the rows of a global batch."""

    segments: Segments
    rows: NumPyArray
    """int64 [n]: the batch's row of each segment."""
    label_from: NumPyArray
    """int64 [n]: position of each segment's first text token that is a label."""
    label_to: NumPyArray
    """int64 [n]: position after the last one."""
    num_rows: int
    """Rows of the batch."""

    @classmethod
    def of(cls, segments: Segments, *, label_from: NumPyArray, label_to: NumPyArray, width: int) -> Assembly:
        """Place segments in as few rows of `width` ids as best-fit decreasing needs."""
        longest_first = np.argsort(-segments.length, kind="stable")
        bins = np.array(best_fit_bins(segments.length[longest_first].tolist(), width=width), np.int64)
        return cls(
            segments=segments[longest_first],
            rows=bins,
            label_from=label_from[longest_first],
            label_to=label_to[longest_first],
            num_rows=int(bins.max()) + 1 if len(bins) else 0,
        )

    def part(self, first: int, *, step: int = 1, count: int) -> Assembly:
        """`count` of the rows, `first`, `first + step`, ...; those after the last are padding."""
        places, rest = np.divmod(self.rows - first, step)
        kept = (rest == 0) & (places >= 0) & (places < count)
        return Assembly(
            segments=self.segments[kept],
            rows=places[kept],
            label_from=self.label_from[kept],
            label_to=self.label_to[kept],
            num_rows=count,
        )

    def padded(self, multiple: int) -> Assembly:
        """The same rows, and rows of padding up to a multiple of `multiple` rows."""
        return replace(self, num_rows=-(-self.num_rows // multiple) * multiple)

    @cached_property
    def _at(self) -> NumPyArray:
        """int64 [n]: the place of each segment's first id in its row; those of a row follow each other."""
        order = np.argsort(self.rows, kind="stable")
        lengths, rows = self.segments.length[order], self.rows[order]
        before = np.cumsum(lengths) - lengths
        is_first = np.diff(rows, prepend=-1) != 0
        places = np.empty(len(order), np.int64)
        places[order] = before - before[is_first][np.cumsum(is_first) - 1]
        return places

    def read(self, dataset: PackedDataset, into: PackedRows) -> None:
        """Copy the segments and padding into `into`, which has `num_rows` rows."""
        numbers, sources = np.unique(self.segments.row, return_inverse=True)
        packed = dataset.rows(numbers)
        into.input_ids[...], into.roles[...], into.documents[...] = dataset.tokenizer.special.pad, Role.PAD, NO_DOCUMENT
        into.segments[...] = np.bincount(self.rows, minlength=self.num_rows)[:, None]
        numbers_in_row = np.zeros(self.num_rows, np.int32)
        columns = (self.rows, self._at, sources, self.segments.first, self.segments.length)
        for row, at, source, first, length in zip(*(column.tolist() for column in columns), strict=True):
            target, part = slice(at, at + length), slice(first, first + length)
            into.input_ids[row, target] = packed.input_ids[source, part]
            into.roles[row, target] = packed.roles[source, part]
            into.documents[row, target] = packed.documents[source, part]
            into.segments[row, target] = numbers_in_row[row]
            numbers_in_row[row] += 1

    def document_numbers(self, numbers: DocumentNumbers, dataset: PackedDataset, read: PackedRows) -> NumPyArray:
        """int64 [num_rows, L + 1]: the number of the document of each token of the rows in `read`; -1 for padding."""
        found = np.full(read.documents.shape, -1, np.int64)
        columns = (self.rows, self._at, self.segments.length)
        firsts = numbers.of(dataset, self.segments.row, read.documents[self.rows, self._at][:, None])[:, 0]
        for row, at, length, number in zip(*(column.tolist() for column in (*columns, firsts)), strict=True):
            found[row, at : at + length] = number
        return found

    def mask(self, roles: NumPyArray, loss_weights: NumPyArray) -> None:
        """Mask the labels of an update's segments that belong to other updates.

        A token that is not text belongs to the text token before it in its segment, or to the first one.

        Args:
            roles: uint8 [num_rows, L + 1], as read; masked tokens get the role of padding.
            loss_weights: float32 [num_rows, L]; masked labels get weight 0.
        """
        segments = self.segments
        is_cut = (self.label_from > segments.start) | (self.label_to < segments.start + segments.num_text)
        for number in np.flatnonzero(is_cut).tolist():
            row, at = int(self.rows[number]), int(self._at[number])
            part = slice(at, at + int(segments.length[number]))
            texts = np.cumsum(roles[row, part] == Role.TEXT)
            positions = segments.start[number] + np.maximum(texts - 1, 0)
            masked = (positions < self.label_from[number]) | (positions >= self.label_to[number])
            roles[row, part][masked] = Role.PAD
            labels = np.flatnonzero(masked) + at - 1
            loss_weights[row, labels[labels >= 0]] = 0.0
