"""Annotation columns of a run: found by name, read one partition at a time.

The files themselves show which annotator wrote a column; no two annotators of a run write the same column. Every file
has the documents' ids too, unless an older version wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.shards.arrow_files import read_table
from colophon.shards.common.errors import ShardError, did_you_mean, one_line
from colophon.shards.manifest import Manifest, checked_path
from colophon.shards.outputs import TOKENS
from colophon.shards.records import Record
from colophon.shards.stores.places import RunPlace

if TYPE_CHECKING:
    import polars as pl


ID = "id"
"""The first column of every annotation file: string."""


def scan_annotations(paths: Sequence[Path]) -> pl.LazyFrame:
    """The columns of an annotator in several of its files, without ids, which files of older versions lack."""
    import polars as pl

    frame = pl.scan_parquet(list(paths), glob=False, extra_columns="ignore", missing_columns="insert")
    return frame.drop(ID, strict=False)


def scan_ids(paths: Sequence[Path]) -> pl.LazyFrame:
    """The ids of the documents in several files of an annotator; collecting fails if an older version wrote one."""
    import polars as pl

    return pl.scan_parquet(list(paths), glob=False, extra_columns="ignore").select(ID)


@dataclass(frozen=True, kw_only=True)
class AnnotationColumn:
    """One column of one annotator."""

    name: str
    output: RunPlace
    annotator: str
    records: Mapping[str, Record]
    """The annotator's files by partition."""

    def read(self, partition: str) -> pa.ChunkedArray:
        """The values of a partition's documents, in their order.

        Raises:
            ShardError: the annotator has no file of the partition, or the file differs from its record.
        """
        record = self.records.get(partition)
        if record is None:
            raise ShardError(f"{self.output}: annotator {self.annotator!r} has no file of partition {partition}")
        with _opened(self.output, record) as parquet:
            if self.name not in parquet.schema_arrow.names:
                raise ShardError(f"{self.output / record.path} lacks the column {self.name!r} of other partitions")
            column = parquet.read(columns=[self.name]).column(self.name)
        if len(column) != record.rows:
            raise ShardError(f"{self.output / record.path} has {len(column)} rows; its record has {record.rows}")
        return column


def find_column(output: RunPlace, manifest: Manifest, name: str) -> AnnotationColumn:
    """The column `name` of the run under `output`, which has one value a document.

    Raises:
        ShardError: no annotator has the column, or it holds lists (the message lists those that can be used), or a file
            differs from its record.
    """
    fields = _fields_by_column(output, manifest)
    single = sorted(column for column, (_, kind) in fields.items() if not pa.types.is_nested(kind))
    if name not in single:
        available = ", ".join(single) or "none"
        if name in fields:
            raise ShardError(f"{output}: column {name!r} is {fields[name][1]}, not one value; available: {available}")
        guess = did_you_mean(name, single)
        raise ShardError(f"{output}: no annotator has a column {name!r}; available: {available}{guess}")
    annotator, _ = fields[name]
    records = {record.partition: record for record in manifest.annotators[annotator].records}
    return AnnotationColumn(name=name, output=output, annotator=annotator, records=records)


def documents_of(
    output: RunPlace, manifest: Manifest, partition: str, rows: Sequence[int]
) -> list[tuple[str | None, dict[str, Any]]]:
    """The id of some documents of a partition, and their annotations by column, in the order of `rows`.

    The id is None where the run has no file of annotations with ids for the partition, and no local file of tokens.

    Raises:
        ShardError: a file cannot be read, or differs from its record.
    """
    columns: dict[str, list[Any]] = {}
    for files in manifest.annotators.values():
        for record in files.records:
            if record.partition == partition:
                with _opened(output, record) as parquet:
                    columns |= parquet.read().take(list(rows)).to_pydict()
    tokens = manifest.outputs.get(TOKENS)
    if tokens is not None and ID not in columns and isinstance(output, Path):
        for record in tokens.records:
            if record.partition == partition:
                table = read_table(checked_path(output, record))
                columns[ID] = table.column(ID).take(list(rows)).to_pylist()
    ids = columns.pop(ID, [None] * len(rows))
    return [(id, {name: values[i] for name, values in columns.items()}) for i, id in enumerate(ids)]


def annotators_by_column(output: RunPlace, manifest: Manifest) -> dict[str, str]:
    """Column to annotator, from the first file of each annotator.

    Raises:
        ShardError: a file cannot be read or differs from its record.
    """
    return {column: annotator for column, (annotator, _) in _fields_by_column(output, manifest).items()}


def _fields_by_column(output: RunPlace, manifest: Manifest) -> dict[str, tuple[str, pa.DataType]]:
    """Column to annotator and type."""
    fields: dict[str, tuple[str, pa.DataType]] = {}
    for annotator, files in manifest.annotators.items():
        if files.records:
            with _opened(output, files.records[0]) as parquet:
                schema = parquet.schema_arrow
                fields |= {column: (annotator, schema.field(column).type) for column in annotated_columns(schema)}
    return fields


def annotated_columns(schema: pa.Schema) -> list[str]:
    """The names of the columns that the annotator of a file wrote."""
    return [name for name in schema.names if name != ID]


@contextmanager
def _opened(output: RunPlace, record: Record) -> Iterator[pq.ParquetFile]:
    path = checked_path(output, record) if isinstance(output, Path) else output / record.path
    try:
        with (
            _content(path, record) as content,
            pq.ParquetFile(content, page_checksum_verification=True, pre_buffer=True) as parquet,
        ):
            yield parquet
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{path}: cannot be read: {one_line(error)}") from None


def _content(path: RunPlace, record: Record) -> AbstractContextManager[object]:
    """The file that Parquet is read from: a path, or an object in a store, of which the needed parts are read."""
    if isinstance(path, Path):
        return nullcontext(path)
    from colophon.shards.stores.objects import StoredObject  # fsspec is needed for stores alone

    file: AbstractContextManager[object] = pa.PythonFile(StoredObject(path, num_bytes=record.bytes).as_file(), mode="r")
    return file
