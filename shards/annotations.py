"""Annotation columns of a run: found by name, read a partition at a time.

Which annotator made a column is told by the files themselves; a run never has a column twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.shards.common.errors import ShardError
from colophon.shards.manifest import Manifest, Record, checked_path


@dataclass(frozen=True, kw_only=True)
class AnnotationColumn:
    """One column of one annotator."""

    name: str
    output: Path
    annotator: str
    records: Mapping[str, Record]
    """The annotator's files by partition."""

    def read(self, partition: str) -> pa.ChunkedArray:
        """The values of a partition's documents, in their order.

        Raises:
            ShardError: the annotator has no file of the partition, or not the one that its record describes.
        """
        record = self.records.get(partition)
        if record is None:
            raise ShardError(f"{self.output}: annotator {self.annotator!r} has nothing on partition {partition}")
        with _opened(self.output, record) as parquet:
            if self.name not in parquet.schema_arrow.names:
                raise ShardError(f"{self.output / record.path} has no column {self.name!r}, other partitions have")
            column = parquet.read(columns=[self.name]).column(self.name)
        if len(column) != record.rows:
            raise ShardError(f"{self.output / record.path} has {len(column)} rows; its record says {record.rows}")
        return column


def find_column(output: Path, manifest: Manifest, name: str) -> AnnotationColumn:
    """The column `name` of the run under `output`.

    Raises:
        ShardError: no annotator has it (the choices are listed), or a file is not as its record says.
    """
    annotators = annotators_by_column(output, manifest)
    if name not in annotators:
        available = ", ".join(sorted(annotators)) or "none"
        raise ShardError(f"{output}: no annotator has a column {name!r}; available: {available}")
    annotator = annotators[name]
    records = {record.partition: record for record in manifest.annotators[annotator].records}
    return AnnotationColumn(name=name, output=output, annotator=annotator, records=records)


def annotators_by_column(output: Path, manifest: Manifest) -> dict[str, str]:
    """The annotator that made each column, by the first file of each."""
    annotators: dict[str, str] = {}
    for annotator, made in manifest.annotators.items():
        if made.records:
            with _opened(output, made.records[0]) as parquet:
                annotators |= dict.fromkeys(parquet.schema_arrow.names, annotator)
    return annotators


@contextmanager
def _opened(output: Path, record: Record) -> Iterator[pq.ParquetFile]:
    path = checked_path(output, record)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            yield parquet
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
