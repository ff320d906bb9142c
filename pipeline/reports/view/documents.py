"""The documents of a run by number: those of its token files, in order, as `colophon inspect --document` counts them.

Opening reads the manifest and one footer of each annotator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from colophon.pipeline.reports.inspection import as_json
from colophon.pipeline.reports.page.columns import MOST_CLASSES
from colophon.pipeline.reports.page.scans import Block, blocks, collected, partition_frame
from colophon.shards.annotations import annotators_by_column
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import ShardError
from colophon.shards.outputs import TOKENS
from colophon.shards.records import Record
from colophon.shards.run_output import RunOutput

ROWS_PER_BLOCK = 250_000
"""A search can be interrupted between blocks."""
_ROWS_SAMPLED = 2_000


@dataclass(frozen=True)
class Documents:
    """The documents of a run, numbered from 0.

    Raises:
        ShardError: a file of the run cannot be read or differs from its record.
    """

    run: RunOutput

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    @cached_property
    def columns(self) -> dict[str, str]:
        """The annotation columns, each with its annotator."""
        return annotators_by_column(self.run.directory, self.run.manifest)

    @cached_property
    def types(self) -> dict[str, pl.DataType]:
        """The types of the annotation columns."""
        found: dict[str, pl.DataType] = {}
        for annotator in dict.fromkeys(self.columns.values()):
            first = next(blocks(self.run, [annotator], most_rows=1), None)
            if first is not None:
                found |= collected(first.frame.limit(0), self.run).schema
        return found

    def are_varied(self) -> set[str]:
        """The string columns that have many values among the first documents, such as URLs."""
        found: set[str] = set()
        for annotator in dict.fromkeys(self.columns.values()):
            first = next(blocks(self.run, [annotator], most_rows=_ROWS_SAMPLED), None)
            if first is not None:
                begun = collected(first.frame.select(pl.col(pl.String)).head(_ROWS_SAMPLED), self.run)
                found |= {name for name in begun.columns if begun[name].n_unique() > MOST_CLASSES}
        return found

    def locate(self, number: int) -> tuple[str, int]:
        """The partition of a document and its row there.

        Raises:
            IndexError: there is no such document.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"there is no document {number}; the run has {len(self):,}, numbered from 0")
        place = int(np.searchsorted(self._first_rows, number, side="right")) - 1
        return self._records[place].partition, number - int(self._first_rows[place])

    def by_partition(self, numbers: NumPyArray) -> Iterator[tuple[str, int, NumPyArray]]:
        """Yield each partition that has some of these ascending numbers: its name, its first number, its own ones."""
        bounds = np.searchsorted(numbers, self._first_rows)
        for place in np.flatnonzero(np.diff(bounds)).tolist():
            own = numbers[bounds[place] : bounds[place + 1]]
            yield self._records[place].partition, int(self._first_rows[place]), own

    def blocks(self, columns: Sequence[str]) -> Iterator[tuple[Block, NumPyArray]]:
        """Yield blocks of documents that have these columns, and the int64 number of each document; without one, -1.

        A partition that an annotator of the columns has no file of is in no block.
        """
        annotators = list(dict.fromkeys(self.columns[name] for name in columns))
        for block in blocks(self.run, annotators, most_rows=ROWS_PER_BLOCK):
            yield block, np.concatenate([self._numbers(partition, rows) for partition, rows in block.partitions])

    def values(self, numbers: NumPyArray) -> list[dict[str, Any]]:
        """The annotations of documents with these ascending numbers, as JSON values by column.

        Columns of an annotator that has no file of a document's partition are missing.
        """
        found: list[dict[str, Any]] = []
        for partition, first, own in self.by_partition(numbers):
            rows: list[dict[str, Any]] = [{} for _ in own]
            for record in self._annotations[partition]:
                taken = collected(partition_frame(self.run, record).select(pl.all().gather(own - first)), self.run)
                for row, values in zip(rows, taken.iter_rows(named=True), strict=True):
                    row.update({name: as_json(value) for name, value in values.items()})
            found += rows
        return found

    def _numbers(self, partition: str, rows: int) -> NumPyArray:
        first, expected = self._spans.get(partition, (0, None))
        return np.arange(first, first + rows) if rows == expected else np.full(rows, -1)

    @cached_property
    def _records(self) -> Sequence[Record]:
        outputs = self.run.manifest.outputs
        output = outputs.get(TOKENS) or next(iter(self.run.manifest.annotators.values()), None)
        if output is None:
            raise ShardError(f"{self.run.directory} has neither annotations nor tokens: run `colophon run` first")
        return output.records

    @cached_property
    def _first_rows(self) -> NumPyArray:
        return np.cumsum([0, *(record.rows for record in self._records)])

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        """The number of a partition's first document, and its documents."""
        firsts = self._first_rows.tolist()
        return {record.partition: (first, record.rows) for record, first in zip(self._records, firsts, strict=False)}

    @cached_property
    def _annotations(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = defaultdict(list)
        for output in self.run.manifest.annotators.values():
            for record in output.records:
                found[record.partition].append(record)
        return found
