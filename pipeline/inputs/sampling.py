"""A sample of the input's documents that does not depend on how the input is cut into partitions.

The sample is the documents with the smallest hash of their id. An input of up to 256 MiB is read whole. Of a larger
input, *units* (a row group of a Parquet file, or a whole other file) are read in the order of a hash of their file and
row group, 8 MiB of each, until 256 MiB are read and the sample is full. If that does not fill it, the whole input is
read. So it depends on the input's files alone: not on `partition_bytes`, the order of the paths or the
number of workers.

The units are read twice: for the hashes, then for the documents. Memory: 16 bytes for each document of the sample, some
batches, and the sample's documents of one unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.partitions import row_group_partition
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.digests import hashes
from colophon.shards.stores.retry import retried_for

Result = TypeVar("Result")
SAMPLED_BYTES = 256 << 20
_UNITS_READ = 32
_LARGEST_HASH = np.uint64(2**64 - 1)
_KEY = b"sample"  # other hashes than those of dropout: the sample is not made of dropped documents


@dataclass(frozen=True)
class _Unit:
    """A row group of a Parquet file, or a whole file of a different format."""

    partition: Partition
    row_group: int | None

    @property
    def hash(self) -> int:
        return int(hashes([f"{self.partition.file_name} {self.row_group}"], key=_KEY)[0])

    def batches(self, needs: Sequence[ColumnNeed], *, limit: int | None) -> Iterator[pa.RecordBatch]:
        """The unit's first rows: as many as have `limit` bytes in their strings, one at least; None: all."""
        part = self.partition if self.row_group is None else row_group_partition(self.partition, self.row_group)
        num_rows = num_bytes = 0
        for batch in PartitionReader(part, needs, stage="calibrate", has_content=False):
            if limit is None or not batch.num_rows:
                yield batch
                continue
            ends = num_bytes + np.cumsum(_row_bytes(batch))
            within = max(int(np.searchsorted(ends, limit, side="right")), 0 if num_rows else 1)
            yield batch.slice(0, within)
            if within < batch.num_rows:
                return
            num_rows, num_bytes = num_rows + within, int(ends[-1])


@dataclass(frozen=True)
class Sample:
    """The chosen documents of an input."""

    needs: tuple[ColumnNeed, ...]
    """Their columns, the id among them."""
    keys: NumPyArray
    """uint64 [documents, 2]: the hashes of each document's id and of all its columns, ascending."""
    _units: tuple[_Unit, ...]
    _unit_bytes: int | None

    def __len__(self) -> int:
        return len(self.keys)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read the documents.

        Raises:
            ColophonError: a file's server fails, retries included.
        """
        remaining = len(self)
        for unit in self._units if remaining else ():
            for batch in _unless_damaged(partial(self._documents, unit)) or []:
                yield batch.slice(0, remaining)  # of equal documents, as many as there are keys
                remaining -= min(batch.num_rows, remaining)

    def _documents(self, unit: _Unit) -> list[pa.RecordBatch]:
        last_id, last_columns = self.keys[-1]
        found = []
        for batch in unit.batches(self.needs, limit=self._unit_bytes):
            rows, keys = _keys(batch, largest=last_id)
            chosen = rows[(keys[:, 0] < last_id) | (keys[:, 1] <= last_columns)]
            if len(chosen):
                found.append(batch.take(pa.array(chosen)))
        return found


def sample_of(partitions: Sequence[Partition], needs: Sequence[ColumnNeed], *, num_documents: int) -> Sample:
    """The `num_documents` documents of the input with the smallest hashes; all of them if it has fewer.

    A unit that cannot be read is not part of it; the run quarantines its partition.

    Args:
        partitions: all partitions of the input.
        needs: the columns to read, the id among them.
        num_documents: the size of the sample.

    Raises:
        ColophonError: a file's server fails, retries included.
    """
    units = sorted(_units(partitions), key=lambda unit: unit.hash)
    if sum(partition.bytes for partition in partitions) > SAMPLED_BYTES:
        unit_bytes = SAMPLED_BYTES // min(_UNITS_READ, len(units))
        sample = _sample(units, needs, num_documents=num_documents, unit_bytes=unit_bytes)
        if len(sample) == num_documents:
            return sample
    return _sample(units, needs, num_documents=num_documents, unit_bytes=None)


def _units(partitions: Sequence[Partition]) -> Iterator[_Unit]:
    for partition in partitions:
        if partition.piece is None:
            for row_group in [None] if partition.row_groups is None else range(*partition.row_groups):
                yield _Unit(partition, row_group)
        elif partition.piece.number == 0:
            yield _Unit(replace(partition, name=partition.file_name, piece=None), None)


def _sample(
    units: Sequence[_Unit], needs: Sequence[ColumnNeed], *, num_documents: int, unit_bytes: int | None
) -> Sample:
    """The sample of the first units that have `SAMPLED_BYTES` and fill it, `unit_bytes` of each; None: of all."""
    smallest, used = _SmallestKeys(num_documents), []
    for unit in units:
        if unit_bytes is not None and smallest.num_bytes >= SAMPLED_BYTES and smallest.are_enough:
            break
        found = _unless_damaged(partial(smallest.with_unit, unit, needs, limit=unit_bytes))
        if found is not None:
            smallest = found
            used.append(unit)
    return Sample(tuple(needs), smallest.keys, tuple(used), unit_bytes)


@dataclass(frozen=True)
class _SmallestKeys:
    """The smallest keys of the documents read so far."""

    num_documents: int
    keys: NumPyArray = field(default_factory=lambda: np.empty((0, 2), np.uint64))
    num_bytes: int = 0
    """Bytes in the strings of all rows read so far."""

    @property
    def are_enough(self) -> bool:
        return len(self.keys) == self.num_documents

    def with_unit(self, unit: _Unit, needs: Sequence[ColumnNeed], *, limit: int | None) -> _SmallestKeys:
        smallest = self
        for batch in unit.batches(needs, limit=limit):
            smallest = smallest.with_batch(batch)
        return smallest

    def with_batch(self, batch: pa.RecordBatch) -> _SmallestKeys:
        _, new = _keys(batch, largest=self.keys[-1, 0] if self.are_enough else _LARGEST_HASH)
        keys = np.concatenate([self.keys, new])
        order = np.lexsort((keys[:, 1], keys[:, 0]))[: self.num_documents]
        return replace(self, keys=keys[order], num_bytes=self.num_bytes + int(_row_bytes(batch).sum()))


def _keys(batch: pa.RecordBatch, *, largest: np.uint64) -> tuple[NumPyArray, NumPyArray]:
    """The rows whose id has a hash of at most `largest`, and their keys: uint64 [rows, 2], see `Sample.keys`.

    The hash of the columns orders documents that have one id.
    """
    of_ids = hashes(batch.column("id").to_pylist(), key=_KEY)
    rows = np.flatnonzero(of_ids <= largest)
    of_columns = hashes(map(repr, batch.take(pa.array(rows)).to_pylist()), key=_KEY)
    return rows, np.stack([of_ids[rows], of_columns], axis=1)


def _row_bytes(batch: pa.RecordBatch) -> NumPyArray:
    """int64 [rows]: the bytes of each row's strings."""
    strings = [c for c in batch.columns if pa.types.is_string(c.type) or pa.types.is_large_string(c.type)]
    lengths = [pc.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False) for column in strings]
    return np.asarray(np.sum(lengths, axis=0, dtype=np.int64))


def _unless_damaged(read: Callable[[], Result]) -> Result | None:
    """The result of `read`, which reads a unit; None if it cannot be read."""
    try:
        return retried_for("the sample for quantile bins", read)
    except InputError:
        return None
