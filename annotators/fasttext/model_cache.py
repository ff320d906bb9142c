"""A cache on this machine for what is derived from model files: tables, which all processes map, and sha256 digests.

It is in `$COLOPHON_CACHE_DIR`, else `$XDG_CACHE_HOME/colophon`, else `~/.cache/colophon`. If that cannot be written, it
is in a directory of this user in the system's temporary directory. It can be deleted at any time.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from colophon.annotators.base import AnnotatorError
from colophon.shards.common.digests import file_sha256, fingerprint
from colophon.shards.common.durable import created_directory, replace_text


def cache_dir() -> Path:
    """The cache's directory, created if it is missing, for this user alone.

    Raises:
        AnnotatorError: neither the cache's own directory nor the one in the temporary directory can be written.
    """
    chosen = os.environ.get("COLOPHON_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    candidates = [Path(chosen)] if chosen else [Path(home, "colophon"), Path(tempfile.gettempdir(), _user_directory())]
    for path in candidates:
        with suppress(OSError, RuntimeError):  # no home directory is a RuntimeError
            path.expanduser().mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(path.expanduser(), os.W_OK) and path.expanduser().stat().st_uid == os.getuid():
                return path.expanduser()
    raise AnnotatorError(f"{candidates[-1]}: not writable; set COLOPHON_CACHE_DIR to a directory that is")


def cached_directory(name: str, build: Callable[[Path], None]) -> Path:
    """The directory `name` of the cache, filled by `build` if it is missing.

    It appears complete or not at all. Of several processes that need it at once, one builds it and the others wait.

    Raises:
        AnnotatorError: it cannot be written. Errors of `build` other than OSError are passed on.
    """
    final = cache_dir() / name
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with _locked(final.with_name(final.name + ".lock")):
        if final.is_dir():
            return final
        try:
            with created_directory(final) as temporary:
                temporary.chmod(0o700)
                build(temporary)
        except OSError as error:
            if not final.is_dir():  # without working locks another process may have built it meanwhile
                raise AnnotatorError(
                    f"{final}: {error.strerror or error}; COLOPHON_CACHE_DIR chooses another"
                ) from None
    return final


def remembered_sha256(path: str | Path) -> str:
    """sha256 of a file in hexadecimal, stored in the cache while its size, times and inode stay the same.

    The time of change (ctime) is among them: an edit that restores the time of modification is noticed.

    Cost: 0.5 to 2 s a GB the first time, then under a millisecond. Of several processes that ask at once, one computes
    it and the others wait.

    Raises:
        AnnotatorError: the file cannot be read.
    """
    try:
        status = Path(path).stat()
        identity = [str(Path(path).resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        note = cache_dir() / "sha256" / f"{fingerprint(identity)}.txt"
        with suppress(FileNotFoundError):
            return note.read_text()
        with ExitStack() as lock:
            with suppress(OSError):  # a full disk: each process computes it
                note.parent.mkdir(parents=True, exist_ok=True)
                lock.enter_context(_locked(note.with_suffix(".lock")))
            with suppress(FileNotFoundError):
                return note.read_text()
            digest = file_sha256(Path(path))
            with suppress(OSError):  # a full disk: the next call computes it again
                replace_text(note, digest)
    except OSError as error:
        raise AnnotatorError(f"{path}: {error.strerror}") from None
    return digest


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        with suppress(OSError):  # file systems without locks: the first process to rename its directory wins
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _user_directory() -> str:
    return f"colophon-{os.getuid()}"
