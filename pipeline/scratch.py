"""Scratch directories outside of outputs: private, deleted after use, also those that killed processes have left."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FRESH_SECONDS = 60.0
"""The age from which a directory without a lock is nobody's: its owner locks it right after it was created."""


@contextmanager
def scratch_directory(path: Path) -> Iterator[None]:
    """Create a directory for this process, and delete it when the block ends.

    Directories beside it that have its name up to the last hyphen, are of this user and are not locked are deleted: the
    system releases the lock of a process that was killed. Where a file system has no locks they stay.
    """
    _sweep(path)
    path.mkdir(mode=0o700)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def _sweep(path: Path) -> None:
    for old in path.parent.glob(f"{path.name.rpartition('-')[0]}-*"):
        with suppress(OSError):  # a link, a directory of a different user, one that somebody has just deleted
            handle = os.open(old, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                status = os.fstat(handle)
                if status.st_uid == os.geteuid() and time.time() - status.st_mtime > _FRESH_SECONDS:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(old, ignore_errors=True)
            finally:
                os.close(handle)
