"""Atomic, durable writes of files and directories: write to a temporary name, fsync, rename, fsync the directory.

A reader sees the old content or the new content, never a part. After a return the new content survives a loss of
power. The temporary name is in the same directory as the final one, so that the rename stays on one file system.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
_TEMPORARY = re.compile(r"\.([^/]+)\.[0-9a-f]{12}\.tmp(?=/|$)")

_NO_SYNC_ERRNOS = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""Some network file systems have no fsync, for directories or at all; they order a rename themselves, or cannot."""
_NO_DIRECTORY_SYNC_ERRNOS = _NO_SYNC_ERRNOS | {errno.EACCES, errno.EPERM}
"""Some refuse to open a directory."""


def sync(path: Path) -> None:
    """Wait until a file, or a directory's entries, are on disk; not at all on a file system without fsync.

    Raises:
        OSError: the disk fails or is full; it names `path`.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (_NO_DIRECTORY_SYNC_ERRNOS if path.is_dir() else _NO_SYNC_ERRNOS):
            raise OSError(error.errno, error.strerror, str(path)) from error


def sync_open_file(handle: int) -> None:
    """Wait until the content of an open file is on disk; not at all on a file system without fsync.

    Raises:
        OSError: the disk fails or is full.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC_ERRNOS:
            raise


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A temporary path for the block to write; it replaces `path` when the block ends.

    If the block raises, the temporary file is removed and `path` keeps its content. A missing directory is created.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically; see `replaced_file`."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, atomically; see `replaced_file`."""
    with replaced_file(path) as temporary:
        temporary.write_bytes(content)


def replace_unsynced(path: Path, content: bytes) -> None:
    """Write `content` to `path`, atomically for readers; a loss of power may leave the old content, a part, or nothing.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def created_directory(path: Path) -> Iterator[Path]:
    """A temporary directory for the block to fill; it is renamed to `path` when the block ends.

    If the block or the rename raises, the temporary directory is removed. Missing parents are created.

    Raises:
        OSError: the directory cannot be written, or `path` exists and is not an empty directory.
    """
    temporary = temporary_path(path.absolute())
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for entry in (*temporary.rglob("*"), temporary):
            sync(entry)
        temporary.rename(path)
        sync(temporary.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def final_path(path: str) -> str:
    """The path that `temporary_path` was given, for an error; any other path as it is."""
    return _TEMPORARY.sub(r"\1", path)


def temporary_path(path: Path) -> Path:
    """A new hidden name in the directory of `path`: `out/a.bin` gives, say, `out/.a.bin.3f9c01b2d4e5.tmp`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}")
