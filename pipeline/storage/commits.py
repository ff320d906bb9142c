"""The commit protocol: files are written under temporary names, checked, synced and renamed, and then recorded.

A worker publishes all files of a pass over a partition together, with one record (see `storage.pass_record`). Readers
trust records only, so a crash at any point leaves nothing that looks finished. On an object store, which cannot rename,
each attempt has its own file names and the record names the winner. Execution is at least once; what is visible is
exactly once.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage.fault_injection import reached
from colophon.pipeline.storage.files import LocalFiles, RemoteFiles, files_at
from colophon.pipeline.storage.ledger import Ledger
from colophon.pipeline.storage.pass_record import PENDING, RECORDS, settings_path
from colophon.pipeline.storage.publication import Finished, Publication
from colophon.pipeline.storage.run_files import RunFiles, disk_full_as_store_error
from colophon.pipeline.storage.shard import LOCK_NAME, SHARDS, Shard
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.durable import TEMPORARY_SUFFIX
from colophon.shards.common.errors import DamagedFileError
from colophon.shards.common.paths import absolute_path
from colophon.shards.common.state_files import checksum_of, parse_state
from colophon.shards.manifest import MANIFEST_NAME, TABLES, Manifest, named_tables, parse_manifest, written_files
from colophon.shards.records import REMEDY, QuarantineEntry, Record

QUARANTINE = "quarantine.jsonl"
_SWEEP_SECONDS = 15.0
"""How long a process of an earlier run may take to finish its publication."""
_WRITTEN_BY_THE_DRIVER = ("calibration", "report", SHARDS, TABLES, f"{TABLES}/annotations", f"{TABLES}/packed")
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
        """A new output file under a temporary name; it is deleted at the end of the context unless published.

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
            yield Draft(output=output, partition=partition, final=final, path=temporary)

    def publish(self, files: Sequence[Finished], *, replaces: bool = False) -> tuple[Record, ...]:
        """Make the finished files of a pass over one partition visible, see `storage.publication`.

        Args:
            files: files of different outputs.
            replaces: whether a segment may have records of these outputs and this partition.

        Returns:
            The valid records: those of an earlier attempt at the same files, if there is one.

        Raises:
            StoreError: another run has taken over the lock, or the store fails.
        """
        publication, storage = Publication(files, self._check_lock), self.files
        if isinstance(storage, LocalFiles):
            return publication.on_disk(storage, replaces=replaces)
        assert isinstance(storage, RemoteFiles)
        return publication.on_store(storage, run=self.run)

    def _check_lock(self) -> None:
        """Raise StoreError if another run has the lock, or nobody because the run of this process has ended."""
        if not self.run:
            return
        try:
            content = self.files.read_bytes(self.lock_name)
            owner = None if content is None else _owner(content)
        except DamagedFileError:  # a run is taking the lock; it waits, in `sweep`, for the process that publishes
            return
        if owner is None:
            raise StoreError(f"{self.root}: the run of this process has ended; it publishes nothing more")
        if owner.get("token") != self.run:
            raise StoreError(f"{self.root}: another run has taken over the lock; this run publishes nothing more")

    def ledger(self, *, share: Collection[str] | None = None, names_alone: bool = False) -> Ledger:
        """The commit records as they are now. Cost: one listing, and one read for each segment.

        Args:
            share: the partitions of a shard; records of others that are in no segment are left to other shards.
            names_alone: a file on a disk counts whatever its size: asking for a size takes six times as long as a name.

        Raises:
            DamagedFileError: a segment is damaged.
        """
        lock, run = self.lock_name, self.run
        return Ledger(self.files, check_lock=self._check_lock, share=share, run=run, lock=lock, names_alone=names_alone)

    def settings(self, output: str) -> dict[str, Any] | None:
        """The settings that an output's files were written with, as JSON; None if they are missing or damaged.

        Each file's fingerprint covers them too, and a run writes them again.
        """
        try:
            return self.files.read_state(settings_path(output), remedy=REMEDY)
        except DamagedFileError:
            return None

    def drafts(self, output: str) -> set[str]:
        """The partitions with a temporary file, of a process that writes it or died; none on object stores."""
        # ".part-0.3f9c01b2d4e5.arrow.tmp" -> "part-0"
        files = self.files
        names = files.names(output) if files.is_local else []
        return {name[1:].rsplit(".", 3)[0] for name in names if _TEMPORARY.fullmatch(name)}

    def sweep(self, outputs: Sequence[str]) -> None:
        """Delete the temporary files of dead processes, and check the outputs. The caller must hold the run's lock.

        Afterwards no process of an earlier run can publish: the lock of the records' directory lets those that are
        publishing finish, and the check of the run's lock stops the others. A shard deletes nothing, because other
        shards write beside it.

        Raises:
            OutputPathError: an output, a record or a report is a link, a pipe or the like.
            LockedError: another process holds the lock of the records' directory.
        """
        files = self.files
        if not isinstance(files, LocalFiles):
            return
        is_there = files.inside(PENDING, is_directory=True).is_dir()
        with files.exclusive(PENDING, seconds=_SWEEP_SECONDS) if is_there else nullcontext():
            if self.shard is not None:
                return
            for output in outputs:
                for directory in (output, f"{RECORDS}/{output}"):
                    _delete_temporary_files(files.entries(directory, hidden_only=True))
            for directory in (RECORDS, PENDING):
                _delete_temporary_files(files.entries(directory, hidden_only=True))
        for directory in _WRITTEN_BY_THE_DRIVER:
            _delete_temporary_files(files.entries(directory, hidden_only=True))
        for name in (MANIFEST_NAME, QUARANTINE):
            files.inside(name)
        _delete_temporary_files(path for path in files.path.glob(f".*{TEMPORARY_SUFFIX}") if not path.is_symlink())

    def manifest(self) -> Manifest | None:
        """The manifest of the last run that ended; None before the first.

        Raises:
            ShardError: it is damaged, or was written in a different version of the format.
        """
        content = self.files.read_bytes(MANIFEST_NAME)
        return None if content is None else parse_manifest(content, where=self.root, read=self.files.read_bytes)

    def write_manifest(self, manifest: Manifest) -> Manifest:
        """Replace the manifest: first its new tables, then `manifest.json`. Returns it with its checksum.

        Tables that the manifest before had and this one does not are deleted. A run that has lost the lock deletes no
        table of the next one: on a disk it does not get here, and on an object store the next one has written none
        under these names, because a name has the token of its run, or is that of a table of the manifest before.
        """
        files, is_written = self.files, False
        while not is_written:  # the check ends a run that has lost the lock to one that has written its manifest
            version = files.version(MANIFEST_NAME)
            text, tables = self._manifest_files(manifest)
            old = [name for name in files.sizes(TABLES) if f"{TABLES}/{name}" not in tables]
            self._check_lock()
            reached("before manifest")
            for path, content in tables.items():
                files.replace_bytes(path, content)
            is_written = files.replace_version(MANIFEST_NAME, text, version=version)
        with files.exclusive(PENDING) if isinstance(files, LocalFiles) else nullcontext():
            if files.is_local:  # the next run waits for this lock when it starts, in `sweep`
                self._check_lock()
            files.remove_all(TABLES, [name for name in old if name.endswith(".parquet")])
        return manifest.model_copy(update={"checksum": checksum_of(text)})

    def _manifest_files(self, manifest: Manifest) -> tuple[str, dict[str, bytes]]:
        """See `written_files`. On a disk names depend on contents alone: one lock guards what is deleted."""
        if self.files.is_local:
            return written_files(manifest)
        content = self.files.read_bytes(MANIFEST_NAME)
        return written_files(manifest, writer=self.run, before=set() if content is None else named_tables(content))


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An output file before it is visible."""

    output: str
    partition: str
    final: str
    """The final path under the root."""
    path: Path
    """The temporary path; the file must be complete and closed before `finish`."""

    def finish(
        self,
        *,
        check: Callable[[Path], None],
        rows: int,
        fingerprint: str,
        counts: Mapping[str, int],
        problems: Sequence[QuarantineEntry] = (),
        content: Mapping[str, str] | None = None,
    ) -> Finished:
        """Check the file and describe it; `Store.publish` makes it visible.

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
        return Finished(self.path, record)


@lru_cache(4)
def _owner(content: bytes) -> dict[str, Any]:
    """The JSON object in the content of a lock's file. It seldom changes, and is read several times a partition."""
    return parse_state(content, where=LOCK_NAME, remedy=REMEDY)


def _delete_temporary_files(paths: Iterable[Path]) -> None:
    for path in paths:
        # A lock's is of this run's next beat, or of a run that waits for the lock.
        if _TEMPORARY.fullmatch(path.name) and not path.name.startswith(f".{LOCK_NAME}.") and path.is_file():
            path.unlink(missing_ok=True)
