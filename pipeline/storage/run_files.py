"""The interface of a run's directory, and the errors of a full disk."""

from __future__ import annotations

import errno
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from colophon.pipeline.errors import StoreError
from colophon.shards.common.errors import DamagedFileError, ShardError, one_line
from colophon.shards.common.output_paths import OutputPathError
from colophon.shards.common.state_files import Model, parse_model, parse_state
from colophon.shards.stores.retry import is_transient

_SIZES = pa.schema([("name", pa.string()), ("bytes", pa.int64())])
_FILES_AT_A_TIME = 1 << 14
_ARRAY_IN_MEMORY_BYTES = 96 << 20
_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""No space, quota exceeded, file too large, read-only file system."""


@contextmanager
def disk_full_as_store_error(place: str) -> Iterator[None]:
    """Name `place` in errors of a full or read-only disk; the system's error, through a library, names no file.

    Raises:
        StoreError: in place of such an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL_ERRNOS:
            raise
        reason = os.strerror(error.errno)
        message = f"{place}: {reason}. Committed files stay; run the same command again to resume"
        raise StoreError(message) from error


@contextmanager
def damage_as_error(place: str) -> Iterator[None]:
    """Name `place`, a file of an output that is read in the block, where it cannot be read, and what to do.

    Raises:
        DamagedFileError: in place of an error of Arrow or of a file's form; transient errors of a disk stay.
    """
    try:
        yield
    except OutputPathError:
        raise
    except (pa.ArrowException, ShardError, OSError) as error:
        if is_transient(error):
            raise
        reason = one_line(error).rpartition(f"{Path(place).name}: ")[2].rstrip(".")
        raise DamagedFileError(f"{place}: damaged: {reason}. Delete it; the same command writes it again") from None


def table_of_names(names: Iterable[str]) -> pa.Table:
    """The table of `RunFiles.size_table` for names of files, without their bytes."""
    rest = iter(names)
    blocks = iter(lambda: list(islice(rest, _FILES_AT_A_TIME)), [])
    column = pa.chunked_array([pa.array(block, pa.string()) for block in blocks], pa.string())
    return pa.table([column, pa.nulls(len(column), pa.int64())], schema=_SIZES)


def table_of_sizes(files: Iterable[tuple[str, int]]) -> pa.Table:
    """The table of `RunFiles.size_table` for names and bytes of files."""
    batches, rest = [], iter(files)
    while block := list(islice(rest, _FILES_AT_A_TIME)):
        names, sizes = zip(*block, strict=True)
        batches.append(pa.record_batch([pa.array(names, pa.string()), pa.array(sizes, pa.int64())], _SIZES))
    return pa.Table.from_batches(batches, _SIZES)


@dataclass(frozen=True)
class RunFiles(ABC):
    """The files of a run's directory. Cheap to create, and picklable.

    On a disk every method raises `OutputPathError` where a part of a path is a link, a pipe or the like.
    """

    root: str

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """Whether files have paths on this machine."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """The local directory.

        Raises:
            ColophonError: the directory is on an object store.
        """

    @abstractmethod
    def read_bytes(self, path: str) -> bytes | None:
        """The content of a small file; None if it does not exist."""

    @abstractmethod
    def replace_bytes(self, path: str, content: bytes, *, synced: bool = True) -> None:
        """Replace a file as a whole: a reader sees the old content or the new.

        Args:
            path: the file.
            content: its new content.
            synced: False: a loss of power may undo it, and may leave a part of the content.
        """

    @abstractmethod
    def create_text(self, path: str, text: str) -> bool:
        """Create a small file unless it exists; whether this call created it, see `RemoteFiles.create_text`."""

    def version(self, path: str) -> str | None:
        """A value that changes with each write of a file, for `replace_version`; None where nothing is known."""
        return None

    def replace_version(self, path: str, text: str, *, version: str | None) -> bool:
        """Replace a file of this version, where the store can check it; whether it is replaced."""
        self.replace_text(path, text)
        return True

    @abstractmethod
    def remove(self, path: str) -> None:
        """Delete a file if it exists."""

    @abstractmethod
    def remove_all(self, directory: str, names: Sequence[str]) -> None:
        """Delete those of the files in a directory that exist."""

    @abstractmethod
    def size(self, path: str) -> int | None:
        """The bytes of a file; None if it does not exist."""

    @abstractmethod
    def sizes(self, directory: str) -> dict[str, int]:
        """The bytes of all files in a directory and its subdirectories, by path relative to the directory.

        Cost: one listing; on object stores one request for each 1,000 objects.
        """

    @abstractmethod
    def size_table(self, directory: str, *, names_alone: bool = False) -> pa.Table:
        """`sizes` as the columns `name: string` and `bytes: int64`: a million files take a tenth of the memory.

        Args:
            directory: the directory.
            names_alone: bytes are null where each takes a call, which is on a disk.
        """

    @abstractmethod
    def names(self, directory: str) -> list[str]:
        """The names of the files in a directory; none if it does not exist."""

    @abstractmethod
    def local_copy(self, path: str) -> AbstractContextManager[Path]:
        """A local path of a file: its own, or that of a copy that exists as long as the context."""

    @abstractmethod
    def temporary_file(self, directory: str, name: str) -> AbstractContextManager[Path]:
        """A local path for writing a file that will go to `directory`; it is deleted when the context ends."""

    @property
    @abstractmethod
    def _scratch_directory(self) -> str: ...

    def replace_text(self, path: str, text: str) -> None:
        """Replace a small file by `text` as UTF-8, see `replace_bytes`."""
        self.replace_bytes(path, text.encode())

    def read_text(self, path: str) -> str | None:
        """The content of a small file, with U+FFFD for bytes that are not UTF-8; None if it does not exist."""
        content = self.read_bytes(path)
        return None if content is None else content.decode("utf-8", "replace")

    def read_state(self, path: str, *, remedy: str) -> dict[str, Any] | None:
        """The JSON object in a small file; None if it does not exist. DamagedFileError: see `parse_state`."""
        content = self.read_bytes(path)
        return None if content is None else parse_state(content, where=f"{self.root}/{path}", remedy=remedy)

    def read_model(self, model: type[Model], path: str, *, remedy: str) -> Model | None:
        """The value of `model` in a small file; None if it does not exist. DamagedFileError: see `parse_model`."""
        content = self.read_bytes(path)
        return None if content is None else parse_model(model, content, where=f"{self.root}/{path}", remedy=remedy)

    def scratch_array(self, shape: tuple[int, int], dtype: Any) -> np.ndarray[Any, Any]:
        """An array to fill: in memory up to 96 MiB, above that mapped from a file without a name.

        Raises:
            StoreError: the disk is full.
        """
        num_bytes = shape[0] * shape[1] * np.dtype(dtype).itemsize
        if num_bytes <= _ARRAY_IN_MEMORY_BYTES:
            return np.empty(shape, dtype)
        directory = self._scratch_directory
        with disk_full_as_store_error(directory), tempfile.TemporaryFile(dir=directory) as file:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                # Without it a full disk would send a signal when a page is written.
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            return np.memmap(file, dtype, "w+", shape=shape)
