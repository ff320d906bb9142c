"""The ledger: the commit records of an output directory, as a run plans with them.

    state = segments, later ones override earlier ones
            + records of older versions of Colophon, one JSON file for each output file
            + pending records, one JSON file for each partition and pass

A run that holds the lock moves the last two into a segment (`compact`): when it starts, every few thousand partitions
or half a minute, and after each pass. A worker's own record is the commit point until then, and the segment is the
point from which a loss of power undoes nothing. Reading costs one listing and one read for each segment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from colophon.pipeline.concurrency import in_threads
from colophon.pipeline.storage.fault_injection import reached
from colophon.pipeline.storage.files import LocalFiles
from colophon.pipeline.storage.pass_record import PENDING, RECORDS, PassRecord
from colophon.pipeline.storage.run_files import RunFiles
from colophon.pipeline.storage.segments import (
    latest,
    outputs_of,
    read_segments,
    segment_names,
    segment_table,
    write_segment,
)
from colophon.shards.common.errors import DamagedFileError, ShardError
from colophon.shards.outputs import Output
from colophon.shards.record_table import RECORDS as COLUMNS
from colophon.shards.record_table import RecordTable, filtered
from colophon.shards.records import REMEDY, Record

SEGMENT_PARTITIONS = 4096
SEGMENT_SECONDS = 30.0
"""A driver writes a segment when workers have reported so many partitions, or so long after the last one."""
MAX_SEGMENTS = 32
"""More segments than these are merged at the end of a pass."""
_MERGED_ROWS = 1 << 20
_READ_ATTEMPTS = 3
_PENDING_NAME = PurePosixPath(PENDING).name


class Ledger:
    """The commit records of a run's output directory."""

    def __init__(
        self, files: RunFiles, *, check_lock: Callable[[], None] = lambda: None, share: Collection[str] | None = None
    ) -> None:
        """Read them: one listing, each segment, and each record that is in none.

        Args:
            files: the output directory.
            check_lock: raises if another run has taken over the output's lock; called before records are moved.
            share: see `Store.ledger`.

        Raises:
            DamagedFileError: a segment is damaged.
        """
        self._files = files
        self._check_lock = check_lock
        self._share = share
        self._reported: dict[str, tuple[Record, ...]] = {}
        self._reported_since = 0.0
        self._chunks: list[pa.Table] = []
        self._loose = segment_table(())
        attempts = 1
        while not self._read(may_retry=attempts < _READ_ATTEMPTS):
            attempts += 1

    def _read(self, *, may_retry: bool) -> bool:
        """Read segments and loose records; False if one has disappeared since it was listed: a run moves them."""
        listed = self._files.sizes(RECORDS)
        self._segments = segment_names(listed)
        chunks = read_segments(self._files, self._segments)
        if chunks is None:
            if may_retry:
                return False
            raise DamagedFileError(f"{self._files.root}/{RECORDS}: segments disappear while they are read. Try again")
        self._chunks = chunks
        names = self._loose_names(listed)
        return self._set_loose(names) == len(names) or not may_retry

    @property
    def outputs(self) -> list[str]:
        """The outputs that have records, valid or not, in no order."""
        return [*{output for chunk in (*self._chunks, self._loose) for output in outputs_of(chunk)}]

    def records(self, output: str) -> RecordTable:
        """The records of an output, whether or not their files exist."""
        if output not in self._tables:
            chunks = (*self._chunks, self._loose)
            of_output = [filtered(chunk, pc.equal(chunk.column("output"), output)) for chunk in chunks]
            table = latest(pa.concat_tables(of_output))
            kept = filtered(table, pc.is_valid(table.column("path"))).select(COLUMNS.names)
            self._tables[output] = RecordTable(output, kept)
        return self._tables[output]

    def sound(self, output: str) -> RecordTable:
        """The records of an output whose files have their full size. Cost: one listing of the output, once."""
        if output not in self._sound:
            records, sizes = self.records(output), self._files.sizes(output)
            paths = pa.array([f"{output}/{name}" for name in sizes], pa.string())
            found = pa.array(sizes.values(), pa.int64()).take(pc.index_in(records.table.column("path"), paths))
            full = pc.fill_null(pc.equal(found, records.table.column("bytes")), False)
            self._sound[output] = RecordTable(output, filtered(records.table, full))
        return self._sound[output]

    def report(self, records: Sequence[Record]) -> None:
        """Note a worker's records; every few thousand partitions they become a segment.

        The caller must hold the run's lock.
        """
        if not records:
            return
        now = time.monotonic()
        self._reported_since = self._reported_since if self._reported else now
        self._reported[records[0].partition] = tuple(records)
        if len(self._reported) >= SEGMENT_PARTITIONS or now - self._reported_since >= SEGMENT_SECONDS:
            self._move([f"{_PENDING_NAME}/{partition}.json" for partition in self._reported])

    def compact(self) -> int:
        """Move all records that are in no segment into one, and merge segments if they are many.

        Afterwards the ledger knows what other processes have recorded, and which files exist. The caller must hold the
        run's lock.

        Returns:
            The number of moved records that an older version wrote, which cannot read the output from now on.
        """
        names = self._loose_names(self._files.sizes(RECORDS))
        self._move(names)
        if self._chunks and self._share is None:  # other shards read and write segments beside this one
            whole = latest(pa.concat_tables(self._chunks))
            if len(self._segments) > MAX_SEGMENTS or sum(chunk.num_rows for chunk in self._chunks) > 2 * whole.num_rows:
                self._merge(whole)
        return sum(not name.startswith(f"{_PENDING_NAME}/") for name in names)

    def _move(self, names: Sequence[str]) -> None:
        """Write a segment of the named records, then delete them."""
        if names:
            # On a disk the lock keeps a late attempt from replacing a record between its reading and its deletion.
            with self._files.exclusive(PENDING) if isinstance(self._files, LocalFiles) else nullcontext():
                self._check_lock()
                found = self._named(names)
                if found:
                    self._write(segment_table(found.values()))
                reached("before removal")
                self._files.remove_all(RECORDS, [*found])
        self._reported.clear()
        self._set_loose(())

    def _write(self, table: pa.Table) -> None:
        if isinstance(self._files, LocalFiles):
            for output in outputs_of(table):
                self._files.sync_directory(output)  # a file whose record survives a loss of power has its name
        reached("before segment")
        self._segments.append(write_segment(self._files, table, after=self._segments))
        self._chunks.append(table)

    def _merge(self, whole: pa.Table) -> None:
        """Write the rows that no later one overrides as new segments, then delete the old ones.

        Withdrawals stay: while an older segment exists, its records must not become valid again.
        """
        self._check_lock()
        old, self._segments = self._segments, self._segments[-1:]
        for start in range(0, whole.num_rows, _MERGED_ROWS):
            part = whole.slice(start, _MERGED_ROWS)
            self._segments.append(write_segment(self._files, part, after=self._segments))
        del self._segments[:1]
        reached("before removal")
        self._files.remove_all(RECORDS, old)
        self._chunks = [whole]

    def _loose_names(self, listed: Iterable[str]) -> list[str]:
        """The records among the paths below `records/` that are in no segment: of older versions, then pending."""
        names = [path for path in map(PurePosixPath, listed) if path.suffix == ".json" and path.name[0] != "."]
        if self._share is not None:
            names = [path for path in names if path.stem in self._share]
        pending = [str(path) for path in names if str(path.parent) == _PENDING_NAME]
        return [*(str(path) for path in names if _is_an_output(str(path.parent))), *pending]

    def _set_loose(self, names: Sequence[str]) -> int:
        """Take the named records as those that are in no segment; the number that exist."""
        found = self._named(names)
        self._loose = segment_table(found.values())
        self._tables: dict[str, RecordTable] = {}
        self._sound: dict[str, RecordTable] = {}
        return len(found)

    def _named(self, names: Sequence[str]) -> dict[str, PassRecord]:
        """The named records that exist, by name."""
        return {
            name: record
            for name, record in zip(names, in_threads(self._read_one, names), strict=True)
            if record is not None
        }

    def _read_one(self, name: str) -> PassRecord | None:
        """A record that is in no segment; None if it has disappeared, or is not visible here yet.

        A damaged record withdraws all older ones of its partition: it may have been written to do so.
        """
        directory, _, file = name.rpartition("/")
        partition = file.removesuffix(".json")
        if directory == _PENDING_NAME and not self._files.is_local and partition in self._reported:
            return PassRecord(partition=partition, records=list(self._reported[partition]))
        try:
            if directory == _PENDING_NAME:
                found = self._files.read_model(PassRecord, f"{RECORDS}/{name}", remedy=REMEDY)
            else:
                record = self._files.read_model(Record, f"{RECORDS}/{name}", remedy=REMEDY)
                found = None if record is None else PassRecord(partition=record.partition, records=[record])
        except DamagedFileError:
            found = PassRecord(partition="")
        if found is None or found.partition == partition:
            return found
        return PassRecord(partition=partition, withdrawn=self.outputs if directory == _PENDING_NAME else [directory])


def _is_an_output(directory: str) -> bool:
    try:
        Output.parse(directory)
    except ShardError:
        return False
    return True
