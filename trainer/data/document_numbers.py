"""Numbers of documents over all layouts that a run reads: which document each token of a batch is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.reader import PackedDataset, PackedFile
from colophon.shards.schema import NO_DOCUMENT
from colophon.trainer.data.packed_layout import PackedLayout


@dataclass(frozen=True, kw_only=True)
class DocumentPlace:
    """The place of a document."""

    packed: PackedLayout
    partition: str
    row: int
    """In the partition."""


class DocumentNumbers:
    """Numbers from 0: the documents of each layout, file by file. A document in two layouts has two numbers."""

    def __init__(self, layouts: Sequence[PackedLayout]) -> None:
        """Count the documents of each file; `layouts` are different ones."""
        self.layouts = tuple(layouts)
        sizes = [[_num_documents(file) for file in packed.dataset.files] for packed in layouts]
        firsts = np.cumsum([0, *(size for of_layout in sizes for size in of_layout)])
        self.num_documents = int(firsts[-1])
        self._firsts: dict[int, NumPyArray] = {}
        for packed, of_layout in zip(layouts, sizes, strict=True):
            self._firsts[id(packed.dataset)], firsts = firsts[: len(of_layout)], firsts[len(of_layout) :]

    def of(self, dataset: PackedDataset, rows: NumPyArray, documents: NumPyArray) -> NumPyArray:
        """int64 [n, width]: the number of each token's document; -1 for padding.

        Args:
            dataset: of one of the layouts.
            rows: int64 [n], rows of the data set.
            documents: uint32 [n, width], as `PackedRows` has them.
        """
        firsts = self._firsts[id(dataset)][dataset.file_numbers(rows)]
        return np.where(documents == NO_DOCUMENT, -1, documents + firsts[:, None])

    def place(self, number: int) -> DocumentPlace:
        """The place of a document by its number."""
        packed = next(one for one in reversed(self.layouts) if self._firsts[id(one.dataset)][0] <= number)
        firsts = self._firsts[id(packed.dataset)]
        file = int(np.searchsorted(firsts, number, side="right")) - 1
        return DocumentPlace(packed=packed, partition=packed.partitions[file], row=number - int(firsts[file]))

    def sizes(self, packed: PackedLayout) -> list[int]:
        """The number of numbers for each file of a layout."""
        return [_num_documents(file) for file in packed.dataset.files]


def _num_documents(file: PackedFile) -> int:
    """Documents of a file's partition up to the last one that it has."""
    documents = file.all_runs()[3]
    documents = documents[documents != NO_DOCUMENT]
    return int(documents.max()) + 1 if len(documents) else 0
