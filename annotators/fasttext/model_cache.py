"""A cache on this machine for what is derived from model files: tables, which all processes map, and sha256 digests.

`shards.common.cache_directory` has its place. It can be deleted at any time, whole or in parts.

What is trusted: the directory itself, which must be this user's and writable by nobody else (the cache's own path may
be a link to such a directory; no link in it is followed), the directories above it, and a file whose size, times and
inode are those of an earlier check of its sha256, for tables since the machine has started. Everything else is checked,
and computed again where it does not fit. So a cache of several machines is safe, and one of several users is refused.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.cache_lock import locked
from colophon.shards.common import cache_directory
from colophon.shards.common.digests import file_sha256, fingerprint
from colophon.shards.common.durable import TEMPORARY_SUFFIX, created_directory, replaced_file, temporary_path
from colophon.shards.common.errors import ExitCode

T = TypeVar("T")

_LEFT_SECONDS = 24 * 3600
_SHA256 = re.compile("[0-9a-f]{64}")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ModelCacheError(AnnotatorError, cache_directory.CacheError):
    """The cache cannot be written or is not private; no model and no input is at fault."""

    exit_code = ExitCode.FAILED


def cache_dir() -> Path:
    """The directory of this user's caches, see `shards.common.cache_directory`.

    Raises:
        ModelCacheError: it cannot be written, or is not private.
    """
    with _as_annotator_error():
        return cache_directory.cache_dir()


def _part(name: str) -> Path:
    """A directory in the cache, which is no link."""
    with _as_annotator_error():
        return cache_directory.cache_part(name)


@contextmanager
def _as_annotator_error() -> Iterator[None]:
    try:
        yield
    except cache_directory.CacheError as error:
        raise ModelCacheError(str(error)) from None


def _not_written(path: Path, error: OSError) -> ModelCacheError:
    return ModelCacheError(f"{path}: {error.strerror or error}; COLOPHON_CACHE_DIR chooses another")


def cached_directory(part: str, name: str, *, build: Callable[[Path], None], read: Callable[[Path], T | None]) -> T:
    """The result of `read` for the directory `name` in a part of the cache; `build` fills it if it is not usable.

    It appears complete or not at all. Of several processes that need it at once, one builds it and the others wait.

    Args:
        part: a directory of the cache.
        name: the directory's name in it.
        build: fills an empty directory.
        read: returns None if the directory is missing, incomplete or damaged; then it is replaced.

    Raises:
        ModelCacheError: it cannot be written. Errors of `build` other than OSError are passed on.
    """
    final = _part(part) / name
    if (found := read(final)) is not None:
        return found
    with locked(final.with_name(final.name + ".lock")):
        if (found := read(final)) is not None:
            return found
        _sweep(final.parent)
        try:
            with created_directory(final) as temporary:
                temporary.chmod(0o700)
                build(temporary)
                _set_aside(final, read)
        except OSError as error:
            if (found := read(final)) is not None:  # another process that did not wait has built it meanwhile
                return found
            raise _not_written(final, error) from None
    if (found := read(final)) is None:
        raise ModelCacheError(f"{final}: damaged again after it was built; {cache_directory.REMEDY}")
    return found


def _set_aside(path: Path, read: Callable[[Path], T | None]) -> None:
    """Remove a directory that is still damaged, or whatever is there; processes that map its files keep them."""
    if not os.path.lexists(path) or read(path) is not None:
        return
    aside = temporary_path(path)
    path.rename(aside)
    _remove(aside)


def _sweep(part: Path) -> None:
    """Remove the temporary directories that killed processes left more than a day ago."""
    for path in part.glob(f".*{TEMPORARY_SUFFIX}"):
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > _LEFT_SECONDS:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def regular_file(path: Path) -> os.stat_result:
    """The status of a file in the cache.

    Raises:
        OSError: it is missing, or a link, a directory or something else that is no regular file.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status


def has_sha256(path: Path, expected: str) -> bool:
    """Whether a file in the cache has this sha256.

    It is computed once for each file since the machine has started, and again when the file's size, times or inode
    change; at each call where the system has no id of its start. Cost: 0.5 to 2 s a GB, then under a millisecond.

    Raises:
        OSError: the file cannot be read.
    """
    boot = _boot_id()
    return (file_sha256(path) if boot is None else _remembered(path, since=boot)) == expected


def remembered_sha256(path: str | Path) -> str:
    """sha256 of a file in hexadecimal, stored in the cache while its size, times and inode stay the same.

    The time of change (ctime) is among them: an edit that restores the time of modification is noticed.

    Cost: 0.5 to 2 s a GB the first time, then under a millisecond. Of several processes that ask at once, one computes
    it and the others wait.

    Raises:
        ModelCacheError: the cache is not private or cannot be written.
        AnnotatorError: the file cannot be read.
    """
    try:
        return _remembered(Path(path).resolve())
    except OSError as error:
        raise AnnotatorError(f"{path}: {error.strerror}") from None


def _remembered(path: Path, *, since: str | None = None) -> str:
    identity = _identity(path)
    note = _part("sha256") / f"{fingerprint(identity if since is None else [*identity, since])}.txt"
    if (known := _noted(note)) is not None:
        return known
    with locked(note.with_suffix(".lock")):
        if (known := _noted(note)) is not None:
            return known
        digest = file_sha256(path)
        if _identity(path) == identity:  # otherwise it was written to meanwhile
            with suppress(OSError), replaced_file(note) as temporary:  # a full disk: the next call computes it again
                temporary.touch(mode=0o600)
                temporary.write_text(digest)
    return digest


def _identity(path: Path) -> list[str | int]:
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _noted(note: Path) -> str | None:
    """The sha256 in a note; None if it is missing or anything but 64 hexadecimal digits."""
    with suppress(OSError, ValueError):
        text = note.read_text("ascii") if regular_file(note).st_size == 64 else ""
        return text if _SHA256.fullmatch(text) else None
    return None


@cache
def _boot_id() -> str | None:
    with suppress(OSError):
        return _BOOT_ID.read_text().strip() or None
    return None
