"""A cache of rows on this machine's disk, shared by all processes and bounded for all of them together.

Every data set has two files, to which processes append under one lock: `<key>.rows` with rows of equal size, and
`<key>.index` with the number and the checksum of each. The key is a digest of the content, so a changed data set has
other files. A row that does not have its checksum counts as missing: a loss of power or a full disk costs reads, and
never changes a token.

No row is replaced. A training goes through permutations of the rows, where a row returns after an epoch on average: a
cache of C of N rows saves at most C reads an epoch, whatever is replaced, and one that keeps its first C rows saves C.
Replacing the least recently used row saves almost none. Files of other data sets are deleted when there is no room and
no process has them open, the oldest first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.cache_directory import CacheError
from colophon.shards.common.errors import ColophonError
from colophon.shards.common.file_locks import flock_within

_ENTRY = np.dtype([("row", "<i8"), ("checksum", "<u4"), ("reserved", "<u4")])
_ROWS, _INDEX, _LOCK = ".rows", ".index", "lock"
_LOCK_SECONDS = 60.0
_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class RowCache:
    """The cached rows of one data set. Not for several threads at once."""

    def __init__(
        self,
        directory: Path,
        *,
        key: str,
        num_rows: int,
        row_bytes: int,
        max_bytes: int,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Open the files of a data set, which are created if they are missing.

        Args:
            directory: private to this user, see `cache_directory.private_directory`.
            key: hexadecimal digest of the data set's content.
            num_rows: of the data set.
            row_bytes: of each row.
            max_bytes: of all files in the directory.
            report: receives one line if the cache stops growing because of the disk.

        Raises:
            CacheError: a file is a link or cannot be opened, or the file system has no locks.
        """
        self._directory, self._key, self._row_bytes = directory, key, row_bytes
        self._max_bytes, self._report = max_bytes, report
        self._slots = np.full(num_rows, -1, np.int64)
        self._checksums = np.zeros(num_rows, np.uint32)
        self._known_slots, self._grows = 0, True
        with self._locked():
            self._rows, self._index = _opened(directory / f"{key}{_ROWS}"), _opened(directory / f"{key}{_INDEX}")
            self._fit()
            fcntl.flock(self._index, fcntl.LOCK_SH)  # others do not delete it
            self._refresh()

    def __len__(self) -> int:
        """Rows that this process knows to be cached."""
        return int(np.count_nonzero(self._slots >= 0))

    def close(self) -> None:
        """Close the files; other processes may delete them afterwards."""
        os.close(self._rows)
        os.close(self._index)

    def has(self, rows: NumPyArray) -> NumPyArray:
        """bool [n]: whether each of the rows is cached, as far as this process knows."""
        found: NumPyArray = self._slots[rows] >= 0
        return found

    def read(self, row: int) -> bytes | None:
        """The content of a row; None if it is not cached or damaged."""
        slot = int(self._slots[row])
        if slot < 0:
            return None
        try:
            content = os.pread(self._rows, self._row_bytes, slot * self._row_bytes)
        except OSError:
            content = b""
        if len(content) != self._row_bytes or _checksum(row, content) != self._checksums[row]:
            self._slots[row] = -1
            return None
        return content

    def add(self, rows: Sequence[int], contents: Sequence[bytes]) -> None:
        """Append those of the rows that are new, as far as they fit. A full disk ends the growth, with one line."""
        if not self._grows:
            return
        try:
            with self._locked():
                self._refresh()
                new = [(row, content) for row, content in zip(rows, contents, strict=True) if self._slots[row] < 0]
                self._delete_unused(self._max_bytes - len(new) * self._item_bytes)
                new = new[: self._room()]
                self._grows = len(new) > 0 or self._room() > 0
                self._append(new)
        except (OSError, ColophonError) as error:
            self._grows = False
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            self._report(f"{self._directory}: {reason}: no more rows are cached; they are read from the store")

    def _append(self, new: Sequence[tuple[int, bytes]]) -> None:
        if not new:
            return
        entries = np.zeros(len(new), _ENTRY)
        entries["row"] = [row for row, _ in new]
        entries["checksum"] = [_checksum(row, content) for row, content in new]
        slot = self._known_slots
        try:
            _write(self._rows, b"".join(content for _, content in new), at=slot * self._row_bytes)
            _write(self._index, entries.tobytes(), at=slot * _ENTRY.itemsize)
        except OSError:
            with suppress(OSError):
                self._truncate(slot)
            raise
        self._note(entries)

    def _refresh(self) -> None:
        """Read the entries that other processes have appended; drop what a killed process has left half written."""
        num_slots = min(_size(self._rows) // self._row_bytes, _size(self._index) // _ENTRY.itemsize)
        if num_slots > self._known_slots:
            at, size = self._known_slots * _ENTRY.itemsize, (num_slots - self._known_slots) * _ENTRY.itemsize
            self._note(np.frombuffer(os.pread(self._index, size, at), _ENTRY))
        self._truncate(num_slots)

    def _note(self, entries: NumPyArray) -> None:
        slots = np.arange(self._known_slots, self._known_slots + len(entries))
        valid = (entries["row"] >= 0) & (entries["row"] < len(self._slots))
        rows = entries["row"][valid]
        self._slots[rows], self._checksums[rows] = slots[valid], entries["checksum"][valid]
        self._known_slots += len(entries)

    def _truncate(self, num_slots: int) -> None:
        for handle, item_bytes in ((self._rows, self._row_bytes), (self._index, _ENTRY.itemsize)):
            if _size(handle) > num_slots * item_bytes:
                os.ftruncate(handle, num_slots * item_bytes)

    @property
    def _item_bytes(self) -> int:
        return self._row_bytes + _ENTRY.itemsize

    def _used(self) -> int:
        return sum(path.stat(follow_symlinks=False).st_size for path in self._files())

    def _room(self) -> int:
        """Rows that may still be added."""
        return max(self._max_bytes - self._used(), 0) // self._item_bytes

    def _fit(self) -> None:
        """Shrink the directory to the bound, which may have been higher before: first what no process uses."""
        self._delete_unused(self._max_bytes)
        own = min(_size(self._rows) // self._row_bytes, _size(self._index) // _ENTRY.itemsize)
        excess = -(-max(self._used() - self._max_bytes, 0) // self._item_bytes)
        if excess and _is_unused(self._index):
            self._truncate(max(own - excess, 0))

    def _delete_unused(self, most_bytes: int) -> None:
        """Delete files of other data sets that no process has open, the oldest first, until few bytes are used."""
        others = [path for path in self._files() if path.suffix == _INDEX and path.stem != self._key]
        for index in sorted(others, key=lambda path: path.stat(follow_symlinks=False).st_mtime):
            if self._used() <= most_bytes:
                return
            with suppress(OSError):
                handle = _opened(index)
                try:
                    if _is_unused(handle):
                        index.with_suffix(_ROWS).unlink(missing_ok=True)
                        index.unlink()
                finally:
                    os.close(handle)

    def _files(self) -> list[Path]:
        with os.scandir(self._directory) as found:
            return [Path(entry.path) for entry in found if entry.name.endswith((_ROWS, _INDEX))]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the directory.

        Raises:
            CacheError: the file system has no locks. LockedError: another process has held it for a minute.
        """
        path = self._directory / _LOCK
        handle = _opened(path)
        try:
            if not flock_within(handle, path, seconds=_LOCK_SECONDS):
                raise CacheError(f"{self._directory}: its file system has no locks; choose a local disk for the cache")
            yield
        finally:
            os.close(handle)


def _opened(path: Path) -> int:
    """A descriptor of a regular file, created for this user alone.

    Raises:
        CacheError: it is a link, a pipe or the like, or cannot be opened.
    """
    try:
        handle = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        reason = "a link" if error.errno == errno.ELOOP else error.strerror
        raise CacheError(f"{path}: {reason}; delete it, or choose another directory for the cache") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise CacheError(f"{path}: not a regular file; delete it")
    return handle


def _is_unused(handle: int) -> bool:
    """Whether no process has the file open as a part of its cache; the lock that is tried is released again."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(handle, fcntl.LOCK_UN)
    except OSError:
        return False
    return True


def _write(handle: int, content: bytes, *, at: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(handle, view, at)
        at, view = at + written, view[written:]


def _size(handle: int) -> int:
    return os.fstat(handle).st_size


def _checksum(row: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(row.to_bytes(8, "little")))
