"""The first rows of a few partitions, and how many bytes of the partitions they are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import fsspec.compression
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.compression import open_as
from colophon.pipeline.inputs.partition_table import Partition, Partitions
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.inputs.search.formats import compression_of
from colophon.shards.common.errors import ColophonError

_PARTITIONS = 4
_TEXT_BYTES = 8 << 20
_SECONDS = 1.0
_MEASURED_BYTES = 4 << 20


@dataclass(frozen=True)
class SampledRows:
    """Rows from the beginning of some partitions."""

    batches: tuple[pa.RecordBatch, ...]
    """The needed columns under their FineWeb names."""
    text_bytes: int
    partition_bytes: int
    """The part of the partitions' bytes in which the rows are; estimated where a partition was not read to its end."""

    @property
    def documents(self) -> int:
        """The number of rows."""
        return sum(batch.num_rows for batch in self.batches)


def sampled_rows(partitions: Sequence[Partition], needs: Sequence[ColumnNeed]) -> SampledRows:
    """Read up to 8 MB of text from up to four partitions that are spread over the input, for about a second.

    Raises:
        ColophonError: no row of these partitions can be read.
    """
    batches: list[pa.RecordBatch] = []
    text_bytes = partition_bytes = 0
    begun, failure = time.monotonic(), "the partitions are empty"
    for partition in spread(partitions, _PARTITIONS):
        reader = PartitionReader(partition, needs, stage="probe", has_content=False)
        rows = 0
        try:
            for batch in _until_full(reader, most_bytes=_TEXT_BYTES // _PARTITIONS, until=begun + _SECONDS):
                batches.append(batch)
                rows += batch.num_rows
        except InputError as error:
            failure = f"{partition.source}: {error}"
            continue
        if rows:
            text_bytes += reader.text_bytes
            partition_bytes += bytes_of_rows(partition, rows, text_bytes=reader.text_bytes)
        if time.monotonic() > begun + _SECONDS:
            break
    if not batches:
        raise ColophonError(f"no rows to measure: {failure}")
    return SampledRows(tuple(batches), text_bytes, max(partition_bytes, 1))


def num_documents(partitions: Partitions, needs: Sequence[ColumnNeed]) -> int:
    """Return the number of documents: exact of Parquet; of other formats estimated from the first rows of some files.

    Raises:
        ColophonError: no row of the other formats can be read.
    """
    rows = partitions.table.column("rows")
    known = int(pc.sum(rows).as_py() or 0)
    uncounted = partitions.chosen(np.flatnonzero(rows.is_null().to_numpy()))
    if not len(uncounted):
        return known
    sampled = sampled_rows(uncounted, needs)
    return known + round(int(uncounted.sizes.sum()) * sampled.documents / sampled.partition_bytes)


def _until_full(reader: PartitionReader, *, most_bytes: int, until: float) -> Iterator[pa.RecordBatch]:
    """Yield batches until they have so much text, or it is so late by `time.monotonic`."""
    for batch in reader:
        if batch.num_rows:
            yield batch
        if reader.text_bytes >= most_bytes or time.monotonic() > until:
            return


def spread(partitions: Sequence[Partition], number: int) -> list[Partition]:
    """Return up to `number` partitions, at equal distances from the first on."""
    return list(islice(partitions, 0, None, max(len(partitions) // number, 1)))[:number]


def bytes_of_rows(partition: Partition, rows: int, *, text_bytes: int) -> int:
    """Return about how many bytes of a partition its first `rows` rows take.

    Of Parquet from the number of rows in the footer; of lines from the first 4 MB of the file, decompressed; of other
    formats the bytes of the texts.
    """
    if partition.rows:
        return max(partition.bytes * rows // partition.rows, 1)
    estimated = text_bytes
    if partition.format in {"jsonl", "csv"}:
        lines, file_bytes = _lines_at_the_beginning(partition.url)
        estimated = file_bytes * rows // lines if lines else text_bytes
    return min(max(estimated, 1), partition.bytes)


def _lines_at_the_beginning(url: str) -> tuple[int, int]:
    """Return the number of lines in about the first 4 MB of a file, and the bytes of the file that hold them."""
    compression = compression_of(url)
    with open_as(url, None) as file:
        content = file if compression is None else fsspec.compression.compr[compression](file, mode="rb")
        lines = content.read(_MEASURED_BYTES).count(b"\n")
        return lines, file.tell()
