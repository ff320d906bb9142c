"""A run's directory as a file system: on a local disk, or on an object store through fsspec.

Paths are relative to the run's directory. A small file is always replaced as a whole: by a rename on a disk, as one
object on an object store.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from colophon.pipeline.errors import StoreError, one_line
from colophon.pipeline.storage import conditional_writes
from colophon.pipeline.storage.run_files import RunFiles, disk_full_as_store_error, table_of_names, table_of_sizes
from colophon.shards.common import durable, output_paths
from colophon.shards.common.errors import ColophonError, MissingLibraryError
from colophon.shards.common.file_locks import flock_within
from colophon.shards.common.state_files import read_regular
from colophon.shards.records import REMEDY
from colophon.shards.stores.addresses import protocol_of
from colophon.shards.stores.filesystems import filesystem_of
from colophon.shards.stores.retry import is_transient, retried

Result = TypeVar("Result")
_PUBLISHING_SECONDS = 120.0
"""How long one process may take to rename and record a file; on a slow disk that is some seconds."""
_OBJECTS_PER_REQUEST = 1000
"""The most that a request may delete."""
_NO_LINK_ERRNOS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EINVAL}


class LocalFiles(RunFiles):
    """A directory on a local disk."""

    @property
    def is_local(self) -> bool:
        """True."""
        return True

    @cached_property
    def path(self) -> Path:
        """The directory."""
        return Path(self.root)

    @property
    def _scratch_directory(self) -> str:
        return self.root

    def inside(self, path: str, *, is_directory: bool = False) -> Path:
        """The full path of a file or directory, see `output_paths.inside`."""
        return output_paths.inside(self.path, path, is_directory=is_directory)

    def entries(self, directory: str, *, hidden_only: bool = False) -> list[Path]:
        """The files and directories in a directory, see `output_paths.entries`."""
        return list(output_paths.entries(self.path, directory, hidden_only=hidden_only))

    def read_bytes(self, path: str) -> bytes | None:
        """The content of a small file; None if it does not exist."""
        return read_regular(self.inside(path), remedy=REMEDY)

    def replace_bytes(self, path: str, content: bytes, *, synced: bool = True) -> None:
        """Replace a file by a rename.

        Raises:
            StoreError: the disk is full or read-only.
        """
        replace = durable.replace_bytes if synced else durable.replace_unsynced
        with disk_full_as_store_error(f"{self.root}/{path}"):
            replace(self.inside(path), content)

    def create_text(self, path: str, text: str) -> bool:
        """Create a small file with its content, unless it exists; exact on file systems with hard links."""
        final = self.inside(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = durable.temporary_path(final)
        try:
            temporary.write_text(text, encoding="utf-8")
            os.link(temporary, final)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINK_ERRNOS:
                raise
            if final.exists():
                return False
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def size(self, path: str) -> int | None:
        """The bytes of a file; None if it does not exist."""
        try:
            return self.inside(path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, directory: str) -> dict[str, int]:
        """The bytes of all files in a directory and below, see `output_paths.file_sizes`."""
        return dict(output_paths.file_sizes(self.path, directory))

    def size_table(self, directory: str, *, names_alone: bool = False) -> pa.Table:
        """The files in a directory and below, see `RunFiles.size_table`."""
        if names_alone:
            return table_of_names(output_paths.file_names(self.path, directory))
        return table_of_sizes(output_paths.file_sizes(self.path, directory))

    def names(self, directory: str) -> list[str]:
        """The names of the files in a directory; none if it does not exist."""
        return [path.name for path in self.entries(directory)]

    @contextmanager
    def local_copy(self, path: str) -> Iterator[Path]:
        """The file's own path."""
        yield self.inside(path)

    @contextmanager
    def temporary_file(self, directory: str, name: str) -> Iterator[Path]:
        """A path in `directory` itself, so that the rename stays on one file system."""
        temporary = self.inside(f"{directory}/{name}")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def move(self, temporary: Path, path: str) -> None:
        """Rename a temporary file to its final path. `sync_directory` makes the name survive a loss of power."""
        temporary.replace(self.inside(path))

    def sync_directory(self, directory: str) -> None:
        """Wait until the names in a directory are on disk; nothing if it does not exist."""
        with suppress(FileNotFoundError):
            durable.sync(self.inside(directory, is_directory=True))

    def remove(self, path: str) -> None:
        """Delete a file if it exists, and sync the directory."""
        full = self.inside(path)
        with suppress(FileNotFoundError):
            full.unlink()
            durable.sync(full.parent)

    def remove_all(self, directory: str, names: Sequence[str]) -> None:
        """Delete those of the files in a directory that exist, and sync each directory once."""
        paths = [self.inside(f"{directory}/{name}") for name in names]
        for path in paths:
            path.unlink(missing_ok=True)
        for parent in {path.parent for path in paths}:
            with suppress(FileNotFoundError):
                durable.sync(parent)

    @contextmanager
    def exclusive(self, directory: str, *, seconds: float = _PUBLISHING_SECONDS) -> Iterator[bool]:
        """Hold the lock of a directory, which one process at a time can hold; a missing directory is created.

        Yields whether it is held: some network file systems have no locks, or none of directories.

        Raises:
            LockedError: another process has held it for `seconds`.
        """
        path = self.inside(directory, is_directory=True)
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            yield flock_within(handle, path, seconds=seconds)
        finally:
            os.close(handle)


class RemoteFiles(RunFiles):
    """A directory on an object store. Every call is retried while its errors are transient, then raises StoreError."""

    @property
    def is_local(self) -> bool:
        """False."""
        return False

    @property
    def path(self) -> Path:
        """Raises ColophonError: there is no local directory."""
        raise ColophonError(f"{self.root} is not a local directory")

    @property
    def _scratch_directory(self) -> str:
        return tempfile.gettempdir()

    def read_bytes(self, path: str) -> bytes | None:
        """The content of a small object; None if it does not exist."""
        try:
            return self._call(path, _content)
        except FileNotFoundError:
            return None

    def replace_bytes(self, path: str, content: bytes, *, synced: bool = True) -> None:
        """Replace an object; a store has it once it has answered."""
        self._call(path, lambda filesystem, full: filesystem.pipe_file(full, content))

    def size(self, path: str) -> int | None:
        """The bytes of an object; None if it does not exist."""
        try:
            return int(self._call(path, lambda filesystem, full: filesystem.info(full)["size"]))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, directory: str) -> dict[str, int]:
        """The bytes of all objects below a directory as they are now."""
        return self._call(directory, _sizes_uncached)

    def size_table(self, directory: str, *, names_alone: bool = False) -> pa.Table:
        """The objects below a directory as they are now, see `RunFiles.size_table`."""
        return table_of_sizes(self.sizes(directory).items())

    def names(self, directory: str) -> list[str]:
        """The names of the objects in a directory as they are now; none if it does not exist."""
        return [path.rsplit("/", 1)[-1] for path in self._call(directory, _find_uncached)]

    def create_text(self, path: str, text: str) -> bool:
        """Create a small object unless it exists.

        Without conditional writes two processes in the same instant may both create it. With them the answer may be
        False although this process has created it: an answer was lost, and the request was sent again.
        """
        if self._call(path, _exists_uncached):  # past the cache of listings; some stores ignore the condition
            return False
        if self.may_create_once:
            return self.create_once(path, text)
        self.replace_text(path, text)
        return True

    @property
    def may_create_once(self) -> bool:
        """Whether the store's library has `create_once`; the store may still ignore its condition."""
        return protocol_of(self.root) in conditional_writes.CREATING_PROTOCOLS

    def create_once(self, path: str, text: str) -> bool:
        """As `create_text`, by the condition of the request alone."""
        return self._call(path, partial(conditional_writes.create, content=text.encode()))

    def version(self, path: str) -> str | None:
        """The object's ETag; None if it does not exist, or the store cannot replace an object of one version only."""
        return self._call(path, conditional_writes.version)

    def replace_version(self, path: str, text: str, *, version: str | None) -> bool:
        """Replace an object if it has this version; whether it is replaced. Exact where `version` is."""
        return self._call(path, partial(conditional_writes.replace, content=text.encode(), unless_after=version))

    @contextmanager
    def local_copy(self, path: str) -> Iterator[Path]:
        """A copy of the object in a temporary directory."""
        with tempfile.TemporaryDirectory(prefix="colophon-") as scratch:
            copy = Path(scratch) / path.rsplit("/", 1)[-1]
            self._call(path, lambda filesystem, full: filesystem.get_file(full, str(copy)))
            yield copy

    @contextmanager
    def temporary_file(self, directory: str, name: str) -> Iterator[Path]:
        """A path in a temporary directory of this machine."""
        with tempfile.TemporaryDirectory(prefix="colophon-") as scratch:
            yield Path(scratch) / name

    def upload(self, local: Path, path: str) -> None:
        """Copy a local file to the store."""
        self._call(path, lambda filesystem, full: filesystem.put_file(str(local), full))

    def remove(self, path: str) -> None:
        """Delete an object if it exists."""
        with suppress(FileNotFoundError):
            self._call(path, lambda filesystem, full: filesystem.rm_file(full))

    def remove_all(self, directory: str, names: Sequence[str]) -> None:
        """Delete those of the objects that exist; stores that can take 1,000 in a request."""
        for start in range(0, len(names), _OBJECTS_PER_REQUEST):
            part = names[start : start + _OBJECTS_PER_REQUEST]
            self._call(directory, partial(_delete_all, names=part))

    def _call(self, path: str, call: Callable[[Any, str], Result]) -> Result:
        """The result of `call(file system, full path)`.

        Raises:
            FileNotFoundError: the object does not exist.
            MissingLibraryError: the store's library is not installed.
            StoreError: the store fails, retries included.
        """
        url = f"{self.root}/{path}"
        try:
            return retried(lambda: call(*filesystem_of(url)))
        except (FileNotFoundError, MissingLibraryError):
            raise
        except Exception as error:
            raise StoreError(f"{url}: {one_line(error)}") from error


@lru_cache(16)
def files_at(root: str) -> RunFiles:
    """The files at a local path or at a URL."""
    return RemoteFiles(root) if "://" in root else LocalFiles(root)


def _find_uncached(filesystem: Any, path: str) -> list[str]:
    filesystem.invalidate_cache()  # other processes write too
    found: list[str] = filesystem.find(path, maxdepth=1)
    filesystem.invalidate_cache()
    return found


def _sizes_uncached(filesystem: Any, path: str) -> dict[str, int]:
    filesystem.invalidate_cache()
    found: dict[str, dict[str, Any]] = filesystem.find(path, detail=True)
    filesystem.invalidate_cache()
    return {name.removeprefix(path).lstrip("/"): int(info["size"]) for name, info in found.items()}


def _delete_all(filesystem: Any, path: str, *, names: Sequence[str]) -> None:
    with suppress(FileNotFoundError):
        filesystem.rm([f"{path}/{name}" for name in names])
    filesystem.invalidate_cache()


def _content(filesystem: Any, path: str) -> bytes:
    """The content of a small object in one request: without a start s3fs asks for the size first."""
    try:
        return bytes(filesystem.cat_file(path, start=0))
    except FileNotFoundError:
        raise
    except Exception as error:
        if is_transient(error):
            raise
        return bytes(filesystem.cat_file(path))  # of an empty object there is no first byte


def _exists_uncached(filesystem: Any, path: str) -> bool:
    filesystem.invalidate_cache()  # another process may have created it
    return bool(filesystem.exists(path))
