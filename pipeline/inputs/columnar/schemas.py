"""The columns of Parquet files, found once for all files of one schema.

Most files of an input have the same one. Comparing two schemas takes 3 µs; building an Arrow schema and checking its
columns takes 20, which was a fifth of the plan of a small file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow.parquet as pq

from colophon.pipeline.inputs.columns import ColumnNeed, column_names, column_problem

_ARROW_SCHEMA = b"ARROW:schema"
"""The key under which Arrow stores the types that a Parquet schema does not tell apart."""


class Columns(NamedTuple):
    """The columns of a file."""

    names: list[str]
    """See `column_names`."""
    problem: str | None
    """See `column_problem`."""


class FileSchemas:
    """The columns of files by their footers; those of the last schema are kept. Safe in threads."""

    def __init__(self, needs: Sequence[ColumnNeed]) -> None:
        """`needs`: the columns that a file must have."""
        self._needs = needs
        self._last: tuple[pq.ParquetSchema, bytes | None, Columns] | None = None

    def columns(self, footer: pq.FileMetaData) -> Columns:
        """The columns of the file with this footer.

        Raises:
            pa.ArrowException: its schema is damaged.
        """
        last, types = self._last, (footer.metadata or {}).get(_ARROW_SCHEMA)
        parquet = pq.ParquetSchema(footer)  # `footer.schema` refers back: each footer would wait for a collection
        if last is not None and last[1] == types and parquet.equals(last[0]):
            return last[2]
        schema = parquet.to_arrow_schema()
        found = Columns(column_names(schema), column_problem(schema, self._needs))
        self._last = (parquet, types, found)
        return found
