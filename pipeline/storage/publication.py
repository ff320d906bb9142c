"""Publication: the files of a pass over one partition become visible together, by one record.

On a disk, in this order:

    the files are synced under their temporary names
    under the lock of `records/pending/`: this run still has the output's lock
    where older files or records may exist: a record that withdraws them, synced
    each file is renamed; in that case the directories are synced
    the record of the pass                                                      <- the commit point

Without the withdrawal, a process that is killed after a rename would leave a new file beside the record of the old one,
which a segment may hold; a recipe that is changed back would trust it. What did not exist before needs none, and no
further syncing: after a loss of power its record is missing or damaged, or its file is missing, and the work is done
again. On an object store each attempt has its own file names, so nothing is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage.fault_injection import reached
from colophon.pipeline.storage.files import LocalFiles, RemoteFiles
from colophon.pipeline.storage.pass_record import PENDING, PassRecord, pending_path
from colophon.pipeline.storage.run_files import disk_full_as_store_error
from colophon.shards.common.durable import sync
from colophon.shards.common.errors import DamagedFileError
from colophon.shards.records import REMEDY, Record


@dataclass(frozen=True)
class Finished:
    """A complete output file under its temporary path, and the record that it will have."""

    path: Path
    record: Record


@dataclass(frozen=True)
class Publication:
    """The finished files of a pass over one partition."""

    finished: Sequence[Finished]
    check_lock: Callable[[], None]
    """Raises StoreError if this run does not have the output's lock any more."""

    @cached_property
    def _records(self) -> list[Record]:
        return [file.record for file in self.finished]

    @cached_property
    def _outputs(self) -> list[str]:
        return [record.output for record in self._records]

    @property
    def _partition(self) -> str:
        return self._records[0].partition

    def on_store(self, files: RemoteFiles, *, run: str) -> tuple[Record, ...]:
        """Upload the files, then their record, which counts as long as the output's head names the run."""
        for file in self.finished:
            reached("before rename", file.record.output)
            files.upload(file.path, file.record.path)
        self._reached_record()
        self.check_lock()
        record = PassRecord(partition=self._partition, records=self._records)
        files.replace_text(pending_path(self._partition, run=run), record.model_dump_json())
        return tuple(self._records)

    def on_disk(self, files: LocalFiles, *, replaces: bool) -> tuple[Record, ...]:
        """Rename the files and write their record; `replaces`: see `Store.publish`."""
        for file in self.finished:
            sync(file.path)
        # An attempt may outlive its run when that is killed. Under the lock, files and record are of the same attempt.
        # Without locks, attempts of one run still write the same bytes, and one of an older run withdraws its record.
        with files.exclusive(PENDING) as is_exclusive:
            self.check_lock()
            pending = self._pending(files)
            if pending is not None and (committed := self._committed_before(files, pending)):
                return committed
            before = pending or PassRecord(partition=self._partition)
            is_new = not (replaces or pending or any(files.size(r.path) is not None for r in self._records))
            self._rename_and_record(files, before, is_new=is_new, is_exclusive=is_exclusive)
        return tuple(self._records)

    def _pending(self, files: LocalFiles) -> PassRecord | None:
        """The partition's record that is in no segment; a damaged one counts as one without content."""
        try:
            return files.read_model(PassRecord, pending_path(self._partition), remedy=REMEDY)
        except DamagedFileError:
            return PassRecord(partition=self._partition)

    def _committed_before(self, files: LocalFiles, pending: PassRecord) -> tuple[Record, ...]:
        """The records of an earlier attempt at the same files; none if it did not finish, or they are different."""
        known = {(r.output, r.fingerprint): r for r in pending.records if files.size(r.path) == r.bytes}
        found = [known[key] for r in self._records if (key := (r.output, r.fingerprint)) in known]
        return tuple(found) if len(found) == len(self._records) else ()

    def _rename_and_record(self, files: LocalFiles, before: PassRecord, *, is_new: bool, is_exclusive: bool) -> None:
        path = pending_path(self._partition)
        withdrawal = before.replaced_by([], withdrawn=self._outputs).model_dump_json()
        text = before.replaced_by(self._records, withdrawn=[]).model_dump_json()
        if not is_new:
            files.replace_text(path, withdrawal)
        for file in self.finished:
            with disk_full_as_store_error(f"{files.root}/{file.record.path}"):
                reached("before rename", file.record.output)
                files.move(file.path, file.record.path)
        if not is_new:
            for output in self._outputs:
                files.sync_directory(output)
        self._reached_record()
        files.replace_bytes(path, text.encode(), synced=not is_new)
        if not is_exclusive:
            self._withdraw_unless_locked(files, text, withdrawal)

    def _reached_record(self) -> None:
        for output in self._outputs:
            reached("before record", output)

    def _withdraw_unless_locked(self, files: LocalFiles, text: str, withdrawal: str) -> None:
        """Withdraw the record, if it still is `text`, and raise StoreError if another run has taken over the lock."""
        try:
            self.check_lock()
        except StoreError:
            path = pending_path(self._partition)
            if files.read_text(path) == text:
                files.replace_text(path, withdrawal)
            raise
