"""Locks of the cache: of several processes that need the same file, one computes it and the others wait.

A lock only saves work, because every result is written under a temporary name and renamed. So a lock that does not
work (no flock on the file system, a link or a FIFO in its place), or whose owner shows no sign of life, is not waited
for: the process then computes the result itself.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from colophon.shards.common.file_locks import describe_process, holder_of

SILENT_SECONDS = 10.0
"""An owner whose lock file has not been touched for this long does not work."""
_BEAT_SECONDS = 1.0
_POLL_SECONDS = 0.05
_LONGEST_SECONDS = 1800.0
"""The longest wait, also for an owner that shows signs of life."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, or work without it after a wait of `SILENT_SECONDS` without a sign of its owner.

    The owner touches the file every second. The file is never written to, truncated or deleted, and a link in its place
    is not followed. A RuntimeWarning names the process that a wait was given up for.
    """
    handle = _handle(path)
    if handle is None:
        yield
        return
    try:
        if not _acquired(handle, path):
            yield
            return
        with _touched(handle):
            yield
    finally:
        os.close(handle)


def _handle(path: Path) -> int | None:
    """An open lock file, created if it is missing; None if it is no regular file or cannot be opened."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o600)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    return None


def _acquired(handle: int, path: Path) -> bool:
    beat, start = None, time.monotonic()
    alive = start
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        except OSError:  # a file system without locks
            return False
        else:
            return True
        last, now = os.fstat(handle).st_mtime_ns, time.monotonic()
        if last != beat:
            beat, alive = last, now
        if now - alive > SILENT_SECONDS or now - start > _LONGEST_SECONDS:
            waited = f"not waiting after {now - start:.0f} s, {now - alive:.0f} s of them without a sign of life"
            owner = describe_process(holder_of(handle))
            warnings.warn(f"{path}: {owner} has the lock; {waited}", RuntimeWarning, stacklevel=2)
            return False
        time.sleep(_POLL_SECONDS)


@contextmanager
def _touched(handle: int) -> Iterator[None]:
    """Touch the file every second in a thread."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_SECONDS):
            with suppress(OSError):
                os.utime(handle)

    thread = threading.Thread(target=beat, name="cache lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
