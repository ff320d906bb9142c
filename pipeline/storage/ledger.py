"""The ledger: the commit records of an output directory, as a run plans with them.

    state = segments, later ones override earlier ones
            + records of older versions of Colophon, one JSON file for each output file
            + pending records, one JSON file for each partition and pass

A run that holds the lock moves the last two into a segment (`compact`): when it starts, every few thousand partitions
or half a minute, and after each pass. A worker's own record is the commit point until then, and the segment is the
point from which a loss of power undoes nothing. Reading costs one listing and one read for each segment. On an object
store with conditional writes the head names the segments and the runs that count, see `storage.head`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from colophon.pipeline.concurrency import in_threads
from colophon.pipeline.storage.fault_injection import reached
from colophon.pipeline.storage.files import LocalFiles, RemoteFiles
from colophon.pipeline.storage.head import Head, Heads, is_head, newest_number, read_head
from colophon.pipeline.storage.pass_record import PENDING, RECORDS, PassRecord, pending_path
from colophon.pipeline.storage.run_files import RunFiles
from colophon.pipeline.storage.segments import (
    by_output,
    latest,
    of_output,
    read_segments,
    segment_names,
    segment_table,
    write_segment,
)
from colophon.pipeline.storage.shard import LOCK_NAME
from colophon.shards.common.errors import DamagedFileError, ShardError
from colophon.shards.outputs import Output
from colophon.shards.record_table import RecordTable, filtered
from colophon.shards.records import REMEDY, Record

SEGMENT_PARTITIONS = 4096
SEGMENT_SECONDS = 30.0
"""A driver writes a segment when workers have reported so many partitions, or so long after the last one."""
MAX_SEGMENTS = 32
"""More segments than these, beside those that many records need, are merged at the end of a pass."""
_MERGED_ROWS = 1 << 18
"""Records of a merged segment: some 50 MB."""
_READ_AT_ONCE = 64
_READ_ATTEMPTS = 3
_PENDING_NAME = PurePosixPath(PENDING).name


class Ledger:
    """The commit records of a run's output directory."""

    def __init__(
        self,
        files: RunFiles,
        *,
        check_lock: Callable[[], None] = lambda: None,
        share: Collection[str] | None = None,
        run: str = "",
        lock: str = LOCK_NAME,
        names_alone: bool = False,
    ) -> None:
        """Read them: one listing, each segment, and each record that is in none.

        Args:
            files: the output directory.
            check_lock: raises if another run has taken over the output's lock; called before records are moved.
            share: see `Store.ledger`.
            run: the token of the writing run.
            lock: the path of its lock.
            names_alone: see `Store.ledger`.

        Raises:
            DamagedFileError: a segment is damaged.
        """
        self._files = files
        self._check_lock = check_lock
        self._share = share
        self._names_alone = names_alone
        self._run = "" if files.is_local else run
        self._heads = Heads(files, lock, run) if isinstance(files, RemoteFiles) else None
        self._head: Head | None = None
        self._reported: dict[str, tuple[Record, ...]] = {}
        self._reported_since = 0.0
        self._chunks: dict[str, list[pa.Table]] = {}
        """By output, the rows of its records in segments, in the order of the segments."""
        self._loose: dict[str, pa.Table] = {}
        """By output, the rows of its records that are in no segment."""
        self._latest: dict[str, pa.Table] = {}
        """By output, the rows that no later one overrides; computed when they are asked for."""
        self._sound: dict[str, RecordTable] = {}
        attempts = 1
        while not self._read(may_retry=attempts < _READ_ATTEMPTS):
            attempts += 1

    def _read(self, *, may_retry: bool) -> bool:
        """Read segments and loose records; False if one has disappeared since it was listed: a run moves them."""
        listed = self._files.sizes(RECORDS)
        number = 0 if self._heads is None else newest_number(listed)
        self._head = read_head(self._files, number)
        if number and self._head is None and may_retry:
            return False
        self._segments = segment_names(listed) if self._head is None else [*self._head.segments]
        self._chunks = {}
        for start in range(0, len(self._segments), _READ_AT_ONCE):
            tables = read_segments(self._files, self._segments[start : start + _READ_AT_ONCE])
            if tables is None:
                if may_retry:
                    return False
                where = f"{self._files.root}/{RECORDS}"
                raise DamagedFileError(f"{where}: segments disappear while they are read. Try again")
            for table in tables:
                self._add(table)
        names = self._loose_names(listed)
        return self._set_loose(names) == len(names) or not may_retry

    @property
    def outputs(self) -> list[str]:
        """The outputs that have records, valid or not, in no order."""
        return [*{*self._chunks, *self._loose}]

    def records(self, output: str) -> RecordTable:
        """The records of an output, whether or not their files exist."""
        rows = self._rows(output)
        return RecordTable(output, filtered(rows, pc.is_valid(rows.column("path"))))

    def _rows(self, output: str) -> pa.Table:
        """The last row of each partition of an output, withdrawals included."""
        if output not in self._latest:
            chunks = [*self._chunks.get(output, ()), *([self._loose[output]] if output in self._loose else [])]
            self._latest[output] = latest(pa.concat_tables(chunks)) if chunks else RecordTable.of(output, ()).table
        return self._latest[output]

    def sound(self, output: str) -> RecordTable:
        """The records of an output whose files have their full size, as far as it is listed.

        Cost: one listing of the output, once.
        """
        if output not in self._sound:
            rows = self.records(output).table
            files = self._files.size_table(output, names_alone=self._names_alone)
            names = pc.if_else(  # "tokens/a.arrow" -> "a.arrow"
                pc.starts_with(rows.column("path"), f"{output}/"),
                pc.utf8_slice_codeunits(rows.column("path"), len(output) + 1),
                None,
            )
            places = pc.index_in(names, files.column("name"), skip_nulls=True)
            is_full = pc.equal(files.column("bytes").take(places), rows.column("bytes"))  # null where no size is known
            is_sound = pc.and_(pc.is_valid(places), pc.fill_null(is_full, self._names_alone))
            self._sound[output] = RecordTable(output, filtered(rows, is_sound))
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
            self._move([self._pending_name(partition) for partition in self._reported])

    def compact(self) -> int:
        """Move all records that are in no segment into one, and merge segments if they are many.

        Afterwards the ledger knows what other processes have recorded, and which files exist. The caller must hold the
        run's lock.

        Returns:
            The number of moved records that an older version wrote, which cannot read the output from now on.
        """
        listed = self._files.sizes(RECORDS)
        names = self._loose_names(listed)
        self._move(names)
        self._close_earlier_runs(listed)
        if self._chunks and self._share is None:  # other shards read and write segments beside this one
            num_rows = sum(self._rows(output).num_rows for output in self._chunks)
            overridden = sum(chunk.num_rows for chunks in self._chunks.values() for chunk in chunks) > 2 * num_rows
            if overridden or len(self._segments) > MAX_SEGMENTS + 2 * num_rows // _MERGED_ROWS:
                self._merge()
        return sum(not name.startswith(f"{_PENDING_NAME}/") for name in names)

    def _close_earlier_runs(self, listed: Collection[str]) -> None:
        """Make the records of earlier runs invalid, now that they are moved; delete what does not count.

        On a disk the heads of an output that was copied from a store are deleted: segments written here count.
        """
        unused = [name for name in listed if is_head(name)] if self._heads is None else []
        if self._heads is not None and self._head is not None:
            if self._share is None:
                loose, segments = {*self._loose_names(listed)}, {*self._segments}
                unused = [name for name in listed if name.startswith(f"{_PENDING_NAME}/") and name not in loose]
                unused += [name for name in segment_names(listed) if name not in segments]
            lock, run = self._heads.lock, self._heads.run
            self._head = self._heads.change(lambda head: head.closing(lock, run))
        if unused:
            self._files.remove_all(RECORDS, unused)

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
            for output in pc.unique(table.column("output")).to_pylist():
                self._files.sync_directory(output)  # a file whose record survives a loss of power has its name
        reached("before segment")
        name = write_segment(self._files, table, after=self._segments)
        self._count([name])
        self._segments.append(name)
        self._add(table)

    def _count(self, new: Sequence[str], *, instead_of: Sequence[str] = ()) -> None:
        """Name new segments in the head, if there is one: from now on they count, and old ones do not."""
        if self._heads is not None and self._head is not None:
            self._head = self._heads.change(lambda head: head.replacing(new, old=instead_of))

    def _add(self, segment: pa.Table) -> None:
        for output, rows in by_output(segment).items():
            self._chunks.setdefault(output, []).append(rows)
            self._latest.pop(output, None)

    def _merge(self) -> None:
        """Write the rows that no later one overrides as new segments, then delete the old ones.

        Withdrawals stay: while an older segment exists, its records must not become valid again.
        """
        self._check_lock()
        old, self._segments = self._segments, self._segments[-1:]
        for part in self._merged():
            self._segments.append(write_segment(self._files, part, after=self._segments))
        del self._segments[:1]
        self._count(self._segments, instead_of=old)
        reached("before removal")
        self._files.remove_all(RECORDS, old)
        self._chunks = {output: [self._rows(output)] for output in self._chunks}

    def _merged(self) -> Iterator[pa.Table]:
        """The rows that no later one overrides, as segments of up to `_MERGED_ROWS` rows."""
        parts: list[pa.Table] = []
        room = _MERGED_ROWS
        for output in self._chunks:
            rows = self._rows(output)
            while rows.num_rows:
                parts.append(of_output(rows.slice(0, room), output))
                rows, room = rows.slice(room), room - parts[-1].num_rows
                if not room:
                    yield pa.concat_tables(parts)
                    parts, room = [], _MERGED_ROWS
        if parts:
            yield pa.concat_tables(parts)

    def _loose_names(self, listed: Iterable[str]) -> list[str]:
        """The records among the paths below `records/` that are in no segment: of older versions, then pending."""
        names = [path for path in map(PurePosixPath, listed) if path.suffix == ".json" and path.name[0] != "."]
        if self._share is not None:
            names = [path for path in names if path.stem in self._share]
        older = [str(path) for path in names if _is_an_output(str(path.parent))]
        pending = [path for path in names if path.parts[0] == _PENDING_NAME and self._counts(path)]
        return [*older, *map(str, sorted(pending, key=lambda path: path.parent.name == self._run))]

    def _counts(self, pending: PurePosixPath) -> bool:
        """Whether a record in `pending/`, or in a run's directory there, is of a run whose records count."""
        *runs, _ = pending.parts[1:]
        return not runs or self._head is None or runs == [run for run in runs if run in self._head.runs]

    def _pending_name(self, partition: str) -> str:
        """The name of a record of this run."""
        return pending_path(partition, run=self._run).removeprefix(f"{RECORDS}/")

    def _set_loose(self, names: Sequence[str]) -> int:
        """Take the named records as those that are in no segment; the number that exist."""
        found = self._named(names)
        loose = by_output(segment_table(found.values()))
        for output in (*self._loose, *loose):
            self._latest.pop(output, None)
        self._loose = loose
        self._sound.clear()
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
        is_pending = directory.split("/", 1)[0] == _PENDING_NAME
        if partition in self._reported and name == self._pending_name(partition):
            reported = PassRecord(partition=partition, records=list(self._reported[partition]))
            # On a disk a later attempt may have replaced it. If not, its bytes need not be parsed.
            files, expected = self._files, reported.model_dump_json().encode()
            if not files.is_local or files.read_bytes(f"{RECORDS}/{name}") == expected:
                return reported
        try:
            if is_pending:
                found = self._files.read_model(PassRecord, f"{RECORDS}/{name}", remedy=REMEDY)
            else:
                record = self._files.read_model(Record, f"{RECORDS}/{name}", remedy=REMEDY)
                found = None if record is None else PassRecord(partition=record.partition, records=[record])
        except DamagedFileError:
            found = PassRecord(partition="")
        if found is None or found.partition == partition:
            return found
        return PassRecord(partition=partition, withdrawn=self.outputs if is_pending else [directory])


def _is_an_output(directory: str) -> bool:
    try:
        Output.parse(directory)
    except ShardError:
        return False
    return True
