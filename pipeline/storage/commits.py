"""The commit protocol: a file is written under a temporary name, checked, synced, renamed, and then recorded.

Readers trust records only, so a crash at any point leaves nothing that looks finished. On an object store, which
cannot rename, a file gets a name of its own for each attempt and the record names the winner. Execution is at least
once; what is visible is exactly once.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import numpy as np
from pydantic import ValidationError

from colophon.pipeline.errors import StoreError, one_line
from colophon.pipeline.retry import retried
from colophon.pipeline.storage.fault_injection import reached
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.durable import sync
from colophon.shards.common.errors import ColophonError
from colophon.shards.manifest import MANIFEST_NAME, Manifest, QuarantineEntry, Record

Result = TypeVar("Result")
RECORDS = "records"
LOCK_NAME = ".lock"
_ARRAY_IN_MEMORY_BYTES = 96 << 20
_DRAFT = ".tmp"
"""What the name of a file ends with while it is written."""
_NOT_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""What only writing meets: no room, no more for this user, none for a file of this size, none at all."""


@contextmanager
def _named_if_not_written(place: str) -> Iterator[None]:
    """Say what could not be written: the system's own error, through a library, names no file.

    Raises:
        StoreError: instead of an OSError of these kinds.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_WRITTEN:
            raise
        reason = os.strerror(error.errno)
        raise StoreError(f"{place}: {reason}; what is committed stays, and the same command goes on") from error


@dataclass(frozen=True)
class Store:
    """A run's output directory: a local path, or any fsspec URL. Cheap to make, and picklable."""

    root: str
    run: str = ""
    """The token of the writing run, see `pipeline.storage.lock`: nothing is published once another run has the lock."""

    @property
    def is_local(self) -> bool:
        """Whether files have paths on this machine."""
        return "://" not in self.root

    @property
    def path(self) -> Path:
        """The local directory.

        Raises:
            ColophonError: it is on an object store.
        """
        if not self.is_local:
            raise ColophonError(f"{self.root} is not a local directory")
        return Path(self.root)

    def remote(self, path: str, call: Callable[[Any, str], Result]) -> Result:
        """What `call` returns for the object store and a path under the root, tried again where that may help.

        Raises:
            FileNotFoundError: there is no such file.
            StoreError: the store fails.
        """
        url = f"{self.root}/{path}"
        try:
            return retried(lambda: call(*fsspec.url_to_fs(url)))
        except FileNotFoundError:
            raise
        except Exception as error:
            raise StoreError(f"{url}: {one_line(error)}") from error

    @contextmanager
    def draft(self, *, output: str, partition: str, suffix: str) -> Iterator[Draft]:
        """A file in the making, for as long as the context lasts; nothing of it stays unless it is committed.

        Args:
            output: directory of the file under the root.
            partition: the file's name without suffix.
            suffix: with the dot.

        Raises:
            StoreError: the disk has no room for it.
        """
        attempt = uuid.uuid4().hex[:12]
        final = f"{output}/{partition}{suffix}" if self.is_local else f"{output}/{partition}.{attempt}{suffix}"
        with (
            _named_if_not_written(f"{self.root}/{final}"),
            self._scratch(output, f".{partition}.{attempt}{suffix}{_DRAFT}") as temporary,
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
        """Make one output file at once: `write` writes the whole file at the path it is given.

        For the other arguments see `draft` and `Draft.commit`.
        """
        with self.draft(output=output, partition=partition, suffix=suffix) as draft:
            write(draft.path)
            return draft.commit(check=check, rows=rows, fingerprint=fingerprint, counts=counts, problems=problems)

    @contextmanager
    def _scratch(self, output: str, name: str) -> Iterator[Path]:
        """A place for a file in the making: beside its final name, so that the rename stays on one file system."""
        if self.is_local:
            directory = self.path / output
            directory.mkdir(parents=True, exist_ok=True)
            temporary = directory / name
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)
        else:
            with tempfile.TemporaryDirectory(prefix="colophon-") as scratch:
                yield Path(scratch) / name

    def drafts(self, output: str) -> set[str]:
        """The partitions of which a file is being written here, or was when a process died; none on object stores."""
        return {path.name[1:].rsplit(".", 3)[0] for path in self._drafts(output)}

    def sweep(self, output: str) -> None:
        """Delete what processes that died were writing. Only for who holds the lock.

        Afterwards no process of an earlier run can publish in this output: one that was about to has done so.
        """
        if self.is_local and (self.path / output).is_dir():
            with self._alone(output):
                for path in self._drafts(output):
                    path.unlink(missing_ok=True)

    def _drafts(self, output: str) -> list[Path]:
        return list((self.path / output).glob(f".*{_DRAFT}")) if self.is_local else []

    def _check_held(self) -> None:
        """No other run may have taken the lock; none at all is fine, then nobody is in the way."""
        if not self.run:
            return
        try:
            owner = self.read_json(LOCK_NAME)
        except json.JSONDecodeError:  # it is being taken, by a run that will wait for who publishes now
            return
        if isinstance(owner, dict) and owner.get("token") != self.run:
            raise StoreError(f"{self.root}: another run has taken over the lock; this one publishes nothing more")

    @contextmanager
    def _alone(self, output: str) -> Iterator[None]:
        """Publish alone: of two attempts at one partition the file and the record must be the same one's.

        An attempt may outlive the run that began it, when that was killed. On object stores each has its own file.
        """
        handle = os.open(self.path / output, os.O_RDONLY)
        try:
            with suppress(OSError):  # some network file systems lock no directories
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _withdraw(self, record: str) -> None:
        """Delete the record of a file that is about to be replaced: it must not vouch for the new content."""
        if (self.path / record).exists():
            (self.path / record).unlink()
            sync((self.path / record).parent)

    def publish(self, temporary: Path, record: Record) -> Record:
        """Put a finished file where its record says, then write the record: from then on readers see it.

        Returns:
            The record in force: that of another attempt at the same file, if that was first.

        Raises:
            StoreError: another run has taken over, or the store fails.
        """
        note = record_path(record.output, record.partition)
        if not self.is_local:
            reached("before rename", record.output)
            self.remote(record.path, lambda filesystem, path: filesystem.put_file(str(temporary), path))
            reached("before record", record.output)
            self._check_held()
            self.write_text(note, record.model_dump_json())
            return record
        final = self.path / record.path
        sync(temporary)
        with self._alone(record.output):
            self._check_held()
            there = self.record(record.output, record.partition)
            # Workers of a run that was killed may finish while the next one works: they touch nothing that is there.
            if there is not None and there.fingerprint == record.fingerprint:
                return there
            self._withdraw(note)
            reached("before rename", record.output)
            temporary.rename(final)
            sync(final.parent)
            reached("before record", record.output)
            self.write_text(note, record.model_dump_json())
        return record

    def record(self, output: str, partition: str) -> Record | None:
        """The commit record of a partition's file, if the file was committed and is there in its full size."""
        text = self.read_text(record_path(output, partition))
        if text is None:
            return None
        try:
            record = Record.model_validate_json(text)
        except ValidationError:
            return None
        return record if self.size(record.path) == record.bytes else None

    def recorded(self, output: str) -> set[str]:
        """The partitions of which a commit record lies there, sound or not: one listing instead of a look for each."""
        if self.is_local:
            directory = self.path / RECORDS / output
            names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
        else:
            found = self.remote(f"{RECORDS}/{output}", _found_anew)
            names = [path.rsplit("/", 1)[-1] for path in found]
        return {name.removesuffix(".json") for name in names}

    def size(self, path: str) -> int | None:
        """Bytes of a file under the root; None if there is none."""
        try:
            if self.is_local:
                return (self.path / path).stat().st_size
            return int(self.remote(path, lambda filesystem, full: filesystem.info(full)["size"]))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def scratch_array(self, shape: tuple[int, int], dtype: Any) -> np.ndarray[Any, Any]:
        """An array to be filled and written: in memory, or, if it is large, mapped from a file that has no name.

        Raises:
            StoreError: the disk has no room for it.
        """
        num_bytes = shape[0] * shape[1] * np.dtype(dtype).itemsize
        if num_bytes <= _ARRAY_IN_MEMORY_BYTES:
            return np.empty(shape, dtype)
        directory = self.root if self.is_local else tempfile.gettempdir()
        with _named_if_not_written(directory), tempfile.TemporaryFile(dir=directory) as file:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                # A disk that is full says so here, not by a signal when a page is written.
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            return np.memmap(file, dtype, "w+", shape=shape)

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """A file under the root as a local path: itself, or a copy for as long as the context lasts."""
        if self.is_local:
            yield self.path / path
            return
        with tempfile.TemporaryDirectory(prefix="colophon-") as scratch:
            copy = Path(scratch) / path.rsplit("/", 1)[-1]
            self.remote(path, lambda filesystem, full: filesystem.get_file(full, str(copy)))
            yield copy

    def read_text(self, path: str) -> str | None:
        """A small file's content; None if there is no such file."""
        try:
            if self.is_local:
                return (self.path / path).read_text(encoding="utf-8")
            return str(self.remote(path, lambda filesystem, full: filesystem.cat_file(full)).decode("utf-8"))
        except FileNotFoundError:
            return None

    def write_text(self, path: str, text: str) -> None:
        """Replace a small file whole: a reader sees the old content or the new one."""
        if not self.is_local:
            self.remote(path, lambda filesystem, full: filesystem.pipe_file(full, text.encode()))
            return
        final = self.path / path
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}{_DRAFT}")
        try:
            temporary.write_text(text, encoding="utf-8")
            sync(temporary)
            temporary.rename(final)
        finally:
            temporary.unlink(missing_ok=True)
        sync(final.parent)

    def read_json(self, path: str) -> Any:
        """A small JSON file's value; None if there is no such file."""
        text = self.read_text(path)
        return None if text is None else json.loads(text)

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        self._check_held()
        reached("before manifest")
        self.write_text(MANIFEST_NAME, manifest.model_dump_json(indent=1))


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An output file before it is visible."""

    store: Store
    output: str
    partition: str
    final: str
    """Where it will lie under the root."""
    path: Path
    """Where it is written now: closed and whole before `commit`."""

    def commit(
        self,
        *,
        check: Callable[[Path], None],
        rows: int,
        fingerprint: str,
        counts: Mapping[str, int],
        problems: Sequence[QuarantineEntry] = (),
    ) -> Record:
        """Check and publish the file, then write its record, which makes it visible.

        Args:
            check: reads the file back and raises if it is not what it should be.
            rows: of the file.
            fingerprint: of everything it was made from.
            counts: what reports add up.
            problems: rows of the input that are not in the file.
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
        )
        return self.store.publish(self.path, record)


def record_path(output: str, partition: str) -> str:
    """Where a commit record lies under the root."""
    return f"{RECORDS}/{output}/{partition}.json"


def settings_path(output: str) -> str:
    """Where the settings that an output's files were made with lie under the root; no partition has this name."""
    return f"{RECORDS}/{output}/.settings.json"


def _found_anew(filesystem: Any, path: str) -> list[str]:
    """The files in a directory as they are now: other processes write too."""
    filesystem.invalidate_cache()
    found: list[str] = filesystem.find(path, maxdepth=1)
    filesystem.invalidate_cache()
    return found
