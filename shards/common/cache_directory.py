"""The directory of this user's caches on this machine: private, and never reached through a link below it.

It is `$COLOPHON_CACHE_DIR`, else `$XDG_CACHE_HOME/colophon`, else `~/.cache/colophon`. If that cannot be written, it is
a directory of this user in the system's temporary directory. It can be deleted at any time, whole or in parts.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from colophon.shards.common.errors import ColophonError

REMEDY = "set COLOPHON_CACHE_DIR to a new directory, which is then created"


class CacheError(ColophonError):
    """A cache that cannot be written or is not private."""


def cache_dir() -> Path:
    """The cache's directory, created if it is missing, for this user alone.

    Raises:
        CacheError: neither the cache's own directory nor the one in the temporary directory can be written, or it
            belongs to or can be written by other users.
    """
    chosen = os.environ.get("COLOPHON_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    candidates = [Path(chosen)] if chosen else [Path(home, "colophon"), Path(tempfile.gettempdir(), _user_directory())]
    for candidate in candidates:
        with suppress(OSError, RuntimeError):  # no home directory is a RuntimeError
            path = candidate.expanduser()
            _create(path)
            is_own = path.stat().st_uid == path.lstat().st_uid == os.geteuid()  # the directory and a link to it
            if os.access(path, os.W_OK) and (is_own or candidate == candidates[-1]):
                _check_private(path, is_own=is_own, mode=path.stat().st_mode, remedy=REMEDY)
                return path
    raise CacheError(f"{candidates[-1]}: not writable; set COLOPHON_CACHE_DIR to a directory that is")


def cache_part(name: str) -> Path:
    """A directory in the cache, which is no link; created if it is missing.

    Raises:
        CacheError: as `cache_dir`; or it is not a directory.
    """
    return private_directory(cache_dir() / name, remedy=REMEDY)


def private_directory(path: Path, *, remedy: str) -> Path:
    """A directory of this user that nobody else can write, and that is no link; created if it is missing.

    Args:
        path: the directory; those above it are created too.
        remedy: what to do about a different one.

    Raises:
        CacheError: it cannot be created, is a link or a file, or others can write to it.
    """
    try:
        _create(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except FileExistsError:  # a file, or a link that leads nowhere
        raise CacheError(f"{path}: not a directory; delete it, or {remedy}") from None
    except OSError as error:
        raise CacheError(f"{path}: {error.strerror or error}; {remedy}") from None
    _check_private(path, is_own=status.st_uid == os.geteuid(), mode=status.st_mode, remedy=remedy)
    return path


def _create(path: Path) -> None:
    """Create a directory and those above it for this user alone."""
    if not path.is_dir():
        if path.parent != path:
            _create(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def _check_private(path: Path, *, is_own: bool, mode: int, remedy: str) -> None:
    if not stat.S_ISDIR(mode):
        raise CacheError(f"{path}: not a directory; delete it, or {remedy}")
    if not is_own:
        raise CacheError(f"{path}: the cache belongs to another user; {remedy}")
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        others = f"other users can write to the cache (mode {stat.S_IMODE(mode):04o})"
        raise CacheError(f"{path}: {others}; run chmod go-w on it, or {remedy}")


def _user_directory() -> str:
    return f"colophon-{os.geteuid()}"
