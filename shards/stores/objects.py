"""Reading of objects in a store: whole, or by ranges of bytes, many at once, all of one version.

On S3 every request names the version that was opened (`If-Match` with its ETag), so an object that is replaced is an
error and never a mixture. Elsewhere the size is checked when the object is opened. Requests are repeated after pauses
while errors are transient: beyond the retries of the client libraries, for about two minutes.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from colophon.shards.common.errors import ColophonError, ShardError, one_line
from colophon.shards.stores.filesystems import filesystem_of
from colophon.shards.stores.places import StorePath
from colophon.shards.stores.retry import is_transient, retried

REQUESTS_AT_ONCE = 32
"""Requests that one process has under way; a request of some kilobytes is mostly waiting."""
PAUSES_SECONDS: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Pauses between attempts: a store that is away for a minute does not end a training."""
_S3 = ("s3://", "s3a://")
_REPLACED = "FileExpired"
"""The name of the error of s3fs for an object that is not the one with the ETag in the request."""

Result = TypeVar("Result")


class StoreReadError(ColophonError):
    """An object store that fails, retries included."""


class StoredObject:
    """An object of a known size, read by ranges. Methods may be called from several threads, and after a fork."""

    def __init__(self, path: StorePath, *, num_bytes: int) -> None:
        """Open the object. Cost: one request.

        Args:
            path: of the object.
            num_bytes: its size by its record.

        Raises:
            ShardError: it is missing, or has a different size.
            StoreReadError: the store fails.
        """
        self.path, self.num_bytes = path, num_bytes
        self.version: str | None = None
        """The version that all ranges are of, such as an ETag; None where the store has none."""
        self._lock = threading.Lock()
        self._opened: tuple[int, Any] = (0, None)
        self.version = self._version(self._file())

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`, one request.

        Raises:
            ShardError: the object has been replaced or deleted since it was opened.
            StoreReadError: the store fails.
        """
        content: bytes = self._call(lambda: self._range(start, stop))
        return content

    def as_file(self) -> io.BufferedIOBase:
        """The object as a file that is read from any place; for libraries that take files."""
        return io.BufferedReader(_ObjectFile(self))

    def _range(self, start: int, stop: int) -> bytes:
        file = self._file()
        if hasattr(file, "_fetch_range"):  # without its position, so that threads can share it
            content = bytes(file._fetch_range(start, stop))
        else:
            with self._lock:
                file.seek(start)
                content = file.read(stop - start)
        if len(content) != stop - start:
            raise ConnectionError(f"the answer has {len(content)} bytes, not {stop - start}")
        return content

    def _file(self) -> Any:
        """fsspec's file of this process: its connections do not survive a fork."""
        pid, file = self._opened
        if pid != os.getpid():
            file = self._call(self._open)
            self._opened = (os.getpid(), file)
        return file

    def _open(self) -> Any:
        filesystem, path = _filesystem(self.path)
        file = filesystem.open(path, "rb", cache_type="none")
        size = getattr(file, "size", None)
        if size is not None and size != self.num_bytes:
            raise ShardError(
                f"{self.path} has {size} bytes; its record states {self.num_bytes} bytes. "
                "`colophon verify` checks every file"
            )
        if self.version is not None and self._version(file) != self.version:
            raise _replaced(self.path)
        return file

    @staticmethod
    def _version(file: Any) -> str | None:
        details = getattr(file, "details", None) or {}
        found = next((details[key] for key in ("ETag", "etag", "generation", "md5Hash") if details.get(key)), None)
        return None if found is None else str(found)

    def _call(self, call: Callable[[], Result]) -> Result:
        def checked() -> Result:
            try:
                return call()
            except FileNotFoundError:
                raise ShardError(f"{self.path} is missing; its record states {self.num_bytes} bytes") from None
            except OSError as error:
                if type(error).__name__ == _REPLACED:
                    raise _replaced(self.path) from None
                raise

        return called(self.path, checked)


class _ObjectFile(io.RawIOBase):
    """An object as a file; each read is a request."""

    def __init__(self, stored: StoredObject) -> None:
        self._stored, self._at = stored, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._stored.num_bytes}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, target: Any) -> int:
        stop = min(self._at + len(target), self._stored.num_bytes)
        content = self._stored.read(self._at, stop) if stop > self._at else b""
        target[: len(content)] = content
        self._at += len(content)
        return len(content)


def read_object(path: StorePath) -> bytes | None:
    """The content of a small object; None if it does not exist.

    Raises:
        StoreReadError: the store fails.
    """
    filesystem, full = _filesystem(path)
    try:
        return bytes(called(path, lambda: filesystem.cat_file(full)))
    except FileNotFoundError:
        return None


def called(path: StorePath, call: Callable[[], Result]) -> Result:
    """The result of a call to a store, repeated while its errors are transient.

    Raises:
        StoreReadError: the store fails, retries included. A missing object raises FileNotFoundError.
    """
    try:
        return retried(call, pauses=PAUSES_SECONDS)
    except (ColophonError, FileNotFoundError):
        raise
    except Exception as error:
        retries = " (retries exhausted)" if is_transient(error) else ""
        raise StoreReadError(f"{path}: {one_line(error)}{retries}") from error


def _replaced(path: StorePath) -> ShardError:
    return ShardError(f"{path} has been replaced since it was opened. `colophon verify` checks every file")


def _filesystem(path: StorePath) -> tuple[Any, str]:
    options = {"config_kwargs": {"max_pool_connections": REQUESTS_AT_ONCE}} if path.url.startswith(_S3) else {}
    return filesystem_of(path.url, **options)


class Requests:
    """Threads that wait for a store's answers. One pool for a process, also after a fork."""

    def __init__(self) -> None:
        self._pool: tuple[int, ThreadPoolExecutor | None] = (0, None)

    def submit(self, call: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Start a call; several are under way at once, at most `REQUESTS_AT_ONCE`."""
        pid, pool = self._pool
        if pool is None or pid != os.getpid():
            pool = ThreadPoolExecutor(REQUESTS_AT_ONCE, "colophon-requests")
            self._pool = (os.getpid(), pool)
        return pool.submit(call, *arguments)

    def all(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        """The results of all calls, in their order; the first error is raised after the others have ended."""
        futures = [self.submit(call) for call in calls]
        errors = [future.exception() for future in futures]
        error = next((error for error in errors if error is not None), None)
        if error is not None:
            raise error
        return [future.result() for future in futures]


REQUESTS = Requests()
