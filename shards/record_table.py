"""Records of one output, and partitions, as columns.

A record becomes a `Record` when it is asked for. Counts, content and problems are JSON in strings.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import DamagedFileError, one_line
from colophon.shards.common.table_rows import TableRows
from colophon.shards.records import REMEDY, PartitionInfo, Record

_JSON = ("counts", "content", "problems")
RECORDS = pa.schema(
    [
        *((name, pa.string()) for name in ("partition", "path")),
        *((name, pa.int64()) for name in ("rows", "bytes")),
        *((name, pa.string()) for name in ("sha256", "fingerprint", *_JSON)),
    ]
)
"""A row a record; an empty JSON value is a null."""
PARTITIONS = pa.schema(
    [
        *((name, pa.string()) for name in ("name", "source")),
        *((name, pa.int64()) for name in ("rows", "bytes")),
        *((name, pa.string()) for name in ("identity", "source_name")),
    ]
)
"""A row a partition, with the fields of `PartitionInfo`."""


class RecordTable(TableRows[Record]):
    """The records of one output."""

    def __init__(self, output: str, table: pa.Table | Callable[[], pa.Table]) -> None:
        """`table` has the columns of `RECORDS`, see `TableRows`."""
        super().__init__(table)
        self.output = output

    @classmethod
    def of(cls, output: str, records: Sequence[Record]) -> RecordTable:
        """The table of some records, which may be one."""
        if isinstance(records, RecordTable) and records.output == output:
            return records
        return cls(output, pa.Table.from_pylist([row_of(record) for record in records], RECORDS))

    def places(self, partitions: pa.Array) -> NumPyArray:
        """int64 [partitions]: the row of each partition's record; -1 where there is none."""
        return pc.fill_null(pc.index_in(partitions, self._partitions), -1).to_numpy().astype("int64")  # type: ignore[no-any-return]

    def chosen(self, places: NumPyArray) -> RecordTable:
        """The records of these rows, in the order of `places`; this table itself for all of its rows."""
        if np.array_equal(places, np.arange(len(self))):
            return self
        return RecordTable(self.output, self.table.take(pa.array(places)))

    @property
    def with_problems(self) -> RecordTable:
        """The records of files from whose input something was excluded."""
        return RecordTable(self.output, self.table.filter(pc.is_valid(self.table.column("problems"))))

    @property
    def without_problems(self) -> RecordTable:
        """The records as a manifest lists them: it has their problems once, under `quarantine`."""
        column = RECORDS.get_field_index("problems")
        nulls = pa.nulls(self.table.num_rows, pa.string())
        return RecordTable(self.output, self.table.set_column(column, RECORDS.field(column), nulls))

    def get(self, partition: str) -> Record | None:
        """The record of a partition."""
        place = self._place_of.get(partition)
        return None if place is None else self[place]

    @cached_property
    def _partitions(self) -> pa.Array:
        return self.table.column("partition").combine_chunks()

    @cached_property
    def _place_of(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self._partitions.to_pylist())}

    def _row(self, values: dict[str, Any]) -> Record:
        """The record of a row.

        Raises:
            DamagedFileError: a value is not one of a record, such as a path that leaves the output.
        """
        try:
            known = {name: json.loads(value) if name in _JSON else value for name, value in values.items() if value}
            return Record.model_validate({"output": self.output, "rows": 0, "bytes": 0, **known})
        except ValueError as error:  # pydantic's too
            message = error.errors()[0]["msg"] if isinstance(error, ValidationError) else one_line(error)
            where = f"the record of {self.output} of partition {values['partition']!r:.80}"
            raise DamagedFileError(f"{where}: damaged: {message}. {REMEDY}") from None


class PartitionTable(TableRows[PartitionInfo]):
    """The partitions of a run."""

    @classmethod
    def of(cls, partitions: Sequence[PartitionInfo]) -> PartitionTable:
        """The table of some partitions, which may be one."""
        if isinstance(partitions, PartitionTable):
            return partitions
        return cls(pa.Table.from_pylist([partition.model_dump() for partition in partitions], PARTITIONS))

    def _row(self, values: dict[str, Any]) -> PartitionInfo:
        return PartitionInfo(**values)


def filtered(table: pa.Table, mask: pa.ChunkedArray) -> pa.Table:
    """The rows for which `mask` is true; the table itself, without a copy, where all are."""
    return table if pc.all(mask).as_py() else table.filter(mask)


def totals(records: Sequence[Record]) -> Counter[str]:
    """The sum of each count over some records. Cost: 3 µs a record of a table, and no `Record` for it."""
    if not isinstance(records, RecordTable):
        counts = (record.counts for record in records)
    else:
        column = records.table.column("counts")
        counts = (json.loads(each) for chunk in column.chunks for each in chunk.to_pylist() if each is not None)
    found: Counter[str] = Counter()
    for each in counts:
        for key, number in each.items():
            found[key] += number
    return found


def num_rows(records: Sequence[Record]) -> int:
    """The sum of the rows of some records."""
    if isinstance(records, RecordTable):
        return pc.sum(records.table.column("rows")).as_py() or 0
    return sum(record.rows for record in records)


def row_of(record: Record) -> dict[str, Any]:
    """The record as a row of `RECORDS`."""
    row = record.model_dump(mode="json", exclude={"output"})
    return {**row, **{name: json.dumps(row[name]) if row[name] else None for name in _JSON}}
