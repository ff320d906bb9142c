"""Rows that validation uses, and that training leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.reader import PackedFile
from colophon.shards.schema import NO_DOCUMENT
from colophon.trainer.data.packed_layout import PackedLayout


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Rows that are validated on, and so not trained on."""

    packed: PackedLayout
    rows: NumPyArray
    """int64, ascending."""

    def training_rows(self, other: PackedLayout) -> NumPyArray:
        """int64, ascending: the rows of a layout that a run may train on.

        The held-out rows themselves are left out; of the run's other layouts, rows with any document of theirs.
        """
        every = np.arange(len(other.dataset))
        if other.output.resolve() != self.packed.output.resolve():
            return every
        return np.setdiff1d(every, self.rows if other is self.packed else self._rows_of_same_documents(other))

    def _rows_of_same_documents(self, other: PackedLayout) -> NumPyArray:
        held = self._documents()
        first_rows = np.cumsum([0, *map(len, other.dataset.files)])
        parts = [
            first + _rows_with(file, held[partition])
            for first, file, partition in zip(first_rows[:-1], other.dataset.files, other.partitions, strict=True)
            if partition in held
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _documents(self) -> dict[str, NumPyArray]:
        """The documents of the held-out rows by partition."""
        located = [self.packed.dataset.locate(int(row)) for row in self.rows]
        partitions = dict(zip(map(id, self.packed.dataset.files), self.packed.partitions, strict=True))
        found: dict[str, list[NumPyArray]] = {}
        for file, row in located:
            _, _, documents = file.runs(row)
            found.setdefault(partitions[id(file)], []).append(documents[documents != NO_DOCUMENT])
        return {partition: np.unique(np.concatenate(documents)) for partition, documents in found.items()}


def _rows_with(file: PackedFile, documents: NumPyArray) -> NumPyArray:
    """int64: rows of a file that hold any of `documents`."""
    offsets, _, _, of_runs = file.all_runs()
    return np.unique(np.repeat(np.arange(len(file)), np.diff(offsets))[np.isin(of_runs, documents)])
