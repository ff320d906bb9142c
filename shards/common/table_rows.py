"""Rows of an Arrow table as a sequence of objects, each built when it is asked for. The table is read on first use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar, overload

import pyarrow as pa

Row = TypeVar("Row")
_ROWS_AT_A_TIME = 1 << 13


class TableRows(Sequence[Row], Generic[Row]):
    """The rows of a table. Equal to any sequence of equal rows.

    A million rows take some hundred megabytes, and no Python object each.
    """

    def __init__(self, table: pa.Table | Callable[[], pa.Table]) -> None:
        """`table`: the table, or a function that reads it; errors of the function are raised at the first use."""
        self._table = table

    @cached_property
    def table(self) -> pa.Table:
        """The columns."""
        return self._table() if callable(self._table) else self._table

    @abstractmethod
    def _row(self, values: dict[str, Any]) -> Row:
        """The object of a row, from its values by column."""

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        """The object of a row, or those of some rows; IndexError where there is none."""
        if isinstance(place, slice):
            rows = self.table.take(pa.array(range(*place.indices(len(self))), pa.int64()))
            return list(map(self._row, rows.to_pylist()))
        number = range(len(self))[place]
        (values,) = self.table.slice(number, 1).to_pylist()
        return self._row(values)

    def __iter__(self) -> Iterator[Row]:
        for batch in self.table.to_batches(max_chunksize=_ROWS_AT_A_TIME):
            yield from map(self._row, batch.to_pylist())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TableRows):
            return type(self) is type(other) and bool(self.table.equals(other.table))
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]
