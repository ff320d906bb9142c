"""The commit protocol: a file is written under a temporary name, checked, synced, renamed, and then recorded.

Readers trust records only, so a crash at any point leaves nothing that looks finished. On an object store, which
cannot rename, each attempt has its own file name and the record names the winner. Execution is at least once; what is
visible is exactly once.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage.fault_injection import reached
from colophon.pipeline.storage.files import LocalFiles, RemoteFiles, RunFiles, disk_full_as_store_error, files_at
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.durable import TEMPORARY_SUFFIX, sync
from colophon.shards.common.paths import absolute_path
from colophon.shards.manifest import MANIFEST_NAME, Manifest, QuarantineEntry, Record

RECORDS = "records"
LOCK_NAME = ".lock"


@dataclass(frozen=True)
class Store:
    """The commits of a run's output directory, a local path or a URL. Cheap to create, and picklable."""

    root: str
    run: str = ""
    """The token of the writing run (see `storage.lock`); nothing is published once another run has the lock."""

    @property
    def files(self) -> RunFiles:
        """The directory's files."""
        return files_at(self.root)

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
            StoreError: the disk is full.
        """
        files, attempt = self.files, uuid.uuid4().hex[:12]
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
        with files.exclusive(record.output):
            self._check_lock()
            committed = self.record(record.output, record.partition)
            if committed is not None and committed.fingerprint == record.fingerprint:
                return committed
            files.remove(record_file)  # the old record must not be valid for the new file
            reached("before rename", record.output)
            files.move(temporary, record.path)
            reached("before record", record.output)
            files.replace_text(record_file, record.model_dump_json())
        return record

    def _upload_and_record(self, files: RemoteFiles, temporary: Path, record: Record) -> Record:
        reached("before rename", record.output)
        files.upload(temporary, record.path)
        reached("before record", record.output)
        self._check_lock()
        files.replace_text(record_path(record.output, record.partition), record.model_dump_json())
        return record

    def _check_lock(self) -> None:
        """Raise StoreError if another run has the lock. Without any lock no other run is writing."""
        if not self.run:
            return
        try:
            owner = self.files.read_json(LOCK_NAME)
        except json.JSONDecodeError:  # a run is taking the lock; it waits, in `sweep`, for the process that publishes
            return
        if isinstance(owner, dict) and owner.get("token") != self.run:
            raise StoreError(f"{self.root}: another run has taken over the lock; this run publishes nothing more")

    def record(self, output: str, partition: str) -> Record | None:
        """The commit record of a partition's file, if there is one and the file has its full size."""
        text = self.files.read_text(record_path(output, partition))
        if text is None:
            return None
        try:
            record = Record.model_validate_json(text)
        except ValidationError:
            return None
        return record if self.files.size(record.path) == record.bytes else None

    def recorded(self, output: str) -> set[str]:
        """The partitions with a commit record, valid or not: one listing instead of a read for each."""
        return {name.removesuffix(".json") for name in self.files.names(f"{RECORDS}/{output}")}

    def drafts(self, output: str) -> set[str]:
        """The partitions with a temporary file, of a process that writes it or died; none on object stores."""
        # ".part-0.3f9c01b2d4e5.arrow.tmp" -> "part-0"
        return {path.name[1:].rsplit(".", 3)[0] for path in self._temporary_files(output)}

    def sweep(self, output: str) -> None:
        """Delete the temporary files of dead processes. The caller must hold the run's lock.

        Afterwards no process of an earlier run can publish in this output: the lock of the directory lets one that is
        publishing finish, and the check of the run's lock stops the others.
        """
        files = self.files
        if isinstance(files, LocalFiles) and (files.path / output).is_dir():
            with files.exclusive(output):
                for path in self._temporary_files(output):
                    path.unlink(missing_ok=True)

    def _temporary_files(self, output: str) -> list[Path]:
        files = self.files
        return list((files.path / output).glob(f".*{TEMPORARY_SUFFIX}")) if files.is_local else []

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        self._check_lock()
        reached("before manifest")
        self.files.replace_text(MANIFEST_NAME, manifest.model_dump_json(indent=1))


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


def record_path(output: str, partition: str) -> str:
    """The path of a commit record under the root."""
    return f"{RECORDS}/{output}/{partition}.json"


def settings_path(output: str) -> str:
    """The path of the settings that an output's files were made with; no partition has this name."""
    return f"{RECORDS}/{output}/.settings.json"
