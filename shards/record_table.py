"""Records of one output, and partitions, as columns.

A record becomes a `Record` when it is asked for. Counts, content and problems are JSON in strings.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import DamagedFileError, one_line
from colophon.shards.common.table_rows import TableRows
from colophon.shards.records import REMEDY, PartitionInfo, Record, file_and_content, file_of

_ROWS_AT_A_TIME = 1 << 13
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
        if len(places) == len(self) and np.array_equal(places, np.arange(len(self))):
            return self
        return RecordTable(self.output, self.table.take(pa.array(places)))

    @cached_property
    def totals(self) -> Counter[str]:
        """The sum of each count. Cost: 3 µs a record, once, and no `Record` for it."""
        return _sums(counts for _, _, counts in self.counted())

    def counted(self) -> Iterator[tuple[str, int, dict[str, int]]]:
        """The partition, rows and counts of each record, without building it."""
        for batch in self.table.select(["partition", "rows", "counts"]).to_batches(max_chunksize=_ROWS_AT_A_TIME):
            for partition, rows, counts in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield partition, rows, {} if counts is None else json.loads(counts)

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

    @property
    def num_rows(self) -> int:
        """The documents of the partitions whose footers state them."""
        return pc.sum(self.table.column("rows")).as_py() or 0

    @property
    def files(self) -> set[str]:
        """`PartitionInfo.file` of each."""
        return {file_of(name) for column in self.table.column("name").chunks for name in column.to_pylist()}

    @property
    def files_and_contents(self) -> list[str]:
        """`file_and_content` of each file, in the order of the partitions."""
        columns = (self.table.column(name).to_pylist() for name in ("name", "identity"))
        return list(dict.fromkeys(map(file_and_content, *columns)))

    @property
    def source_names(self) -> dict[str, str]:
        """The name of its source for each partition that has one."""
        named = self.table.filter(pc.is_valid(self.table.column("source_name")))
        return dict(zip(named.column("name").to_pylist(), named.column("source_name").to_pylist(), strict=True))

    @property
    def num_files_of_sources(self) -> Counter[str | None]:
        """The number of files of each source, by its name."""
        files = self.table.group_by(["source_name", "source"]).aggregate([])
        return Counter(files.column("source_name").to_pylist())

    def _row(self, values: dict[str, Any]) -> PartitionInfo:
        return PartitionInfo(**values)


def filtered(table: pa.Table, mask: pa.ChunkedArray) -> pa.Table:
    """The rows for which `mask` is true; the table itself, without a copy, where all are."""
    return table if pc.all(mask).as_py() else table.filter(mask)


def totals(records: Sequence[Record]) -> Counter[str]:
    """The sum of each count over some records, see `RecordTable.totals`."""
    return records.totals if isinstance(records, RecordTable) else _sums(record.counts for record in records)


def counted_records(records: Sequence[Record]) -> Iterator[tuple[str, int, dict[str, int]]]:
    """The partition, rows and counts of each record, see `RecordTable.counted`."""
    if isinstance(records, RecordTable):
        return records.counted()
    return ((record.partition, record.rows, record.counts) for record in records)


def _sums(counts: Iterable[dict[str, int]]) -> Counter[str]:
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
    problems = [problem.model_dump(mode="json") for problem in record.problems]
    values = {"counts": record.counts, "content": record.content, "problems": problems}
    plain = {name: getattr(record, name) for name in RECORDS.names if name not in values}
    return {**plain, **{name: json.dumps(value) if value else None for name, value in values.items()}}
