"""The commit protocol: a file is written under a temporary name, checked, synced, renamed, and then recorded.

Readers trust records only, so a crash at any point leaves nothing that looks finished. On an object store, which
cannot rename, each attempt has its own file name and the record names the winner. Execution is at least once; what is
visible is exactly once.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage.fault_injection import reached
from colophon.pipeline.storage.files import LocalFiles, RemoteFiles, files_at
from colophon.pipeline.storage.run_files import RunFiles, disk_full_as_store_error
from colophon.pipeline.storage.shard import LOCK_NAME, SHARDS, Shard
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.durable import TEMPORARY_SUFFIX, sync
from colophon.shards.common.errors import DamagedFileError
from colophon.shards.common.paths import absolute_path
from colophon.shards.common.state_files import checksum_of
from colophon.shards.manifest import MANIFEST_NAME, REMEDY, Manifest, QuarantineEntry, Record, manifest_text

RECORDS = "records"
QUARANTINE = "quarantine.jsonl"
_SWEEP_SECONDS = 15.0
"""How long a process of an earlier run may take to finish its publication."""
_WRITTEN_BY_THE_DRIVER = ("calibration", "report", SHARDS)
_TEMPORARY = re.compile(rf"\..+\.[0-9a-f]{{12}}(\.[a-z]+)?{re.escape(TEMPORARY_SUFFIX)}")
"""The names of our temporary files, see `durable.temporary_path` and `Store.draft`; other hidden files stay."""


@dataclass(frozen=True)
class Store:
    """The commits of a run's output directory, a local path or a URL. Cheap to create, and picklable."""

    root: str
    run: str = ""
    """The token of the writing run (see `storage.lock`); nothing is published once another run has the lock."""
    shard: Shard | None = None
    """The shard of the writing run; None: it is a whole run."""

    @property
    def files(self) -> RunFiles:
        """The directory's files."""
        return files_at(self.root)

    @property
    def lock_name(self) -> str:
        """The path of the writing run's lock under the root."""
        return LOCK_NAME if self.shard is None else self.shard.lock_name

    @property
    def absolute(self) -> Store:
        """The same store for a process with a different working directory."""
        return replace(self, root=absolute_path(self.root))

    @contextmanager
    def draft(self, *, output: str, partition: str, suffix: str) -> Iterator[Draft]:
        """A new output file under a temporary name; it is deleted at the end of the context unless committed.

        Args:
            output: directory of the file under the root.
            partition: the file's name without suffix.
            suffix: with the dot.

        Raises:
            StoreError: the disk is full, or another run has taken over the lock.
        """
        files, attempt = self.files, uuid.uuid4().hex[:12]
        if files.is_local:
            self._check_lock()
        name = f"{partition}{suffix}" if files.is_local else f"{partition}.{attempt}{suffix}"
        final = f"{output}/{name}"
        with (
            disk_full_as_store_error(f"{self.root}/{final}"),
            files.temporary_file(output, f".{partition}.{attempt}{suffix}{TEMPORARY_SUFFIX}") as temporary,
        ):
            reached("before write", output)
            yield Draft(store=self, output=output, partition=partition, final=final, path=temporary)

    def commit(
        self,
        *,
        output: str,
        partition: str,
        suffix: str,
        write: Callable[[Path], None],
        check: Callable[[Path], None],
        rows: int,
        fingerprint: str,
        counts: Mapping[str, int],
        problems: Sequence[QuarantineEntry] = (),
    ) -> Record:
        """Write and commit an output file that `write` writes as a whole to the path it gets.

        For the other arguments see `draft` and `Draft.commit`.
        """
        with self.draft(output=output, partition=partition, suffix=suffix) as draft:
            write(draft.path)
            return draft.commit(check=check, rows=rows, fingerprint=fingerprint, counts=counts, problems=problems)

    def publish(self, temporary: Path, record: Record) -> Record:
        """Make a finished file visible: move it to the path in its record, then write the record.

        Returns:
            The valid record: that of an earlier attempt at the same file, if there is one.

        Raises:
            StoreError: another run has taken over the lock, or the store fails.
        """
        files = self.files
        if isinstance(files, LocalFiles):
            return self._rename_and_record(files, temporary, record)
        assert isinstance(files, RemoteFiles)
        return self._upload_and_record(files, temporary, record)

    def _rename_and_record(self, files: LocalFiles, temporary: Path, record: Record) -> Record:
        record_file = record_path(record.output, record.partition)
        sync(temporary)
        # An attempt may outlive its run when that is killed. Under the lock, file and record are of the same attempt.
        # Without locks, attempts of one run still write the same bytes, and one of an older run withdraws its record.
        with files.exclusive(record.output) as is_exclusive:
            self._check_lock()
            committed = self.record(record.output, record.partition)
            if committed is not None and committed.fingerprint == record.fingerprint:
                return committed
            files.remove(record_file)  # the old record must not be valid for the new file
            reached("before rename", record.output)
            files.move(temporary, record.path)
            reached("before record", record.output)
            files.replace_text(record_file, record.model_dump_json())
            if not is_exclusive:
                self._withdraw_unless_locked(files, record_file, record)
        return record

    def _withdraw_unless_locked(self, files: LocalFiles, record_file: str, record: Record) -> None:
        """Delete the record, if it is still this one, and raise StoreError if another run has taken over the lock."""
        try:
            self._check_lock()
        except StoreError:
            if files.read_text(record_file) == record.model_dump_json():
                files.remove(record_file)
            raise

    def _upload_and_record(self, files: RemoteFiles, temporary: Path, record: Record) -> Record:
        reached("before rename", record.output)
        files.upload(temporary, record.path)
        reached("before record", record.output)
        self._check_lock()
        files.replace_text(record_path(record.output, record.partition), record.model_dump_json())
        return record

    def _check_lock(self) -> None:
        """Raise StoreError if another run has the lock, or nobody because the run of this process has ended."""
        if not self.run:
            return
        try:
            owner = self.files.read_state(self.lock_name, remedy=REMEDY)
        except DamagedFileError:  # a run is taking the lock; it waits, in `sweep`, for the process that publishes
            return
        if owner is None:
            raise StoreError(f"{self.root}: the run of this process has ended; it publishes nothing more")
        if owner.get("token") != self.run:
            raise StoreError(f"{self.root}: another run has taken over the lock; this run publishes nothing more")

    def record(self, output: str, partition: str) -> Record | None:
        """The commit record of a partition's file, if there is one and the file has its full size."""
        try:
            record = self.files.read_model(Record, record_path(output, partition), remedy=REMEDY)
        except DamagedFileError:
            return None
        if record is None:
            return None
        return record if self.files.size(record.path) == record.bytes else None

    def settings(self, output: str) -> dict[str, Any] | None:
        """The settings that an output's files were written with, as JSON; None if they are missing or damaged.

        Each file's fingerprint covers them too, and a run writes them again.
        """
        try:
            return self.files.read_state(settings_path(output), remedy=REMEDY)
        except DamagedFileError:
            return None

    def recorded(self, output: str) -> set[str]:
        """The partitions with a commit record, valid or not: one listing instead of a read for each."""
        return {name.removesuffix(".json") for name in self.files.names(f"{RECORDS}/{output}")}

    def drafts(self, output: str) -> set[str]:
        """The partitions with a temporary file, of a process that writes it or died; none on object stores."""
        # ".part-0.3f9c01b2d4e5.arrow.tmp" -> "part-0"
        files = self.files
        names = files.names(output) if files.is_local else []
        return {name[1:].rsplit(".", 3)[0] for name in names if _TEMPORARY.fullmatch(name)}

    def sweep(self, outputs: Sequence[str]) -> None:
        """Delete the temporary files of dead processes, and check the outputs. The caller must hold the run's lock.

        Afterwards no process of an earlier run can publish in these outputs: the lock of each directory lets one that
        is publishing finish, and the check of the run's lock stops the others. A shard deletes nothing, because other
        shards write beside it.

        Raises:
            OutputPathError: an output, a record or a report is a link, a pipe or the like.
            LockedError: another process holds the lock of an output's directory.
        """
        files = self.files
        if not isinstance(files, LocalFiles):
            return
        for output in outputs:
            is_there = files.inside(output, is_directory=True).is_dir()
            with files.exclusive(output, seconds=_SWEEP_SECONDS) if is_there else nullcontext():
                if self.shard is None:
                    _delete_temporary_files(files.entries(output))
                    _delete_temporary_files(files.entries(f"{RECORDS}/{output}"))
        if self.shard is not None:
            return
        for directory in _WRITTEN_BY_THE_DRIVER:
            _delete_temporary_files(files.entries(directory))
        for name in (MANIFEST_NAME, QUARANTINE):
            files.inside(name)
        _delete_temporary_files(path for path in files.path.glob(f".*{TEMPORARY_SUFFIX}") if not path.is_symlink())

    def write_manifest(self, manifest: Manifest) -> Manifest:
        """Replace the manifest; returns it as written, with its checksum."""
        self._check_lock()
        reached("before manifest")
        text = manifest_text(manifest)
        self.files.replace_text(MANIFEST_NAME, text)
        return manifest.model_copy(update={"checksum": checksum_of(text)})


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An output file before it is visible."""

    store: Store
    output: str
    partition: str
    final: str
    """The final path under the root."""
    path: Path
    """The temporary path; the file must be complete and closed before `commit`."""

    def commit(
        self,
        *,
        check: Callable[[Path], None],
        rows: int,
        fingerprint: str,
        counts: Mapping[str, int],
        problems: Sequence[QuarantineEntry] = (),
        content: Mapping[str, str] | None = None,
    ) -> Record:
        """Check and publish the file, then write its record, which makes it visible.

        Args:
            check: reads the file back and raises if it is damaged.
            rows: the number of rows in the file.
            fingerprint: covers everything that the file was made from.
            counts: numbers that reports add up.
            problems: rows of the input that are not in the file.
            content: sha256 of each column of the input that the file was made from.
        """
        check(self.path)
        record = Record(
            output=self.output,
            partition=self.partition,
            path=self.final,
            rows=rows,
            bytes=self.path.stat().st_size,
            sha256=file_sha256(self.path),
            fingerprint=fingerprint,
            counts=dict(counts),
            problems=list(problems),
            content=dict(content or {}),
        )
        return self.store.publish(self.path, record)


def _delete_temporary_files(paths: Iterable[Path]) -> None:
    for path in paths:
        # A lock's is of this run's next beat, or of a run that waits for the lock.
        if _TEMPORARY.fullmatch(path.name) and not path.name.startswith(f".{LOCK_NAME}.") and path.is_file():
            path.unlink(missing_ok=True)


def record_path(output: str, partition: str) -> str:
    """The path of a commit record under the root."""
    return f"{RECORDS}/{output}/{partition}.json"


def settings_path(output: str) -> str:
    """The path of the settings that an output's files were made with; no partition has this name."""
    return f"{RECORDS}/{output}/.settings.json"
