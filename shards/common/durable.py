"""The one way to replace a file and to make a directory appear: a temporary name, fsync, rename, fsync.

A reader sees the old content or the new, never a part of it, and what was renamed survives a loss of power. The
temporary name is beside the final one, so that the rename stays on one file system.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def sync(path: Path) -> None:
    """Wait until a file, or a directory's entries, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends, and is removed when it raises.

    The directory is created if it is missing. The temporary name begins with a dot and ends in `.tmp`.

    Raises:
        OSError: the file cannot be written; `path` is as it was.
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
    """Replace a small UTF-8 file; see `replaced_file`."""
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def created_directory(path: Path) -> Iterator[Path]:
    """A temporary directory that becomes `path` when the block ends, and is removed when it raises.

    Raises:
        OSError: it cannot be written, or `path` exists and is not an empty directory.
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


def temporary_path(path: Path) -> Path:
    """A new hidden name beside `path`, for what is not finished: `out/a.bin` gives `out/.a.bin.3f9c01b2d4e5.tmp`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}")
