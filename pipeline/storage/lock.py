"""The lock of an output directory: one run at a time.

On a disk the system holds the lock (flock) and releases it when the owner's process ends, however it ends; the lock
file only names the owner. Object stores and some network file systems have no locks: there the owner rewrites a small
file every few seconds, a lease, and a run that finds one waits to see whether it still changes. Two runs that start on
an object store in the same instant may both continue, until one of them finds the other's lock when it publishes, and
ends.

The lock does not stop workers that outlive a killed run. Therefore every publication checks the owner, see
`Store.publish`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage.commits import LOCK_NAME, Store
from colophon.pipeline.storage.owner import Owner
from colophon.pipeline.storage.run_files import RunFiles
from colophon.shards.common.errors import ColophonError, DamagedFileError
from colophon.shards.common.file_locks import LOCKED_ERRNOS, describe_process, holder_of
from colophon.shards.common.output_paths import OutputPathError, open_regular
from colophon.shards.manifest import REMEDY

BEAT_SECONDS = 10.0
_SILENT_BEATS = 3
"""An owner that misses this many beats is dead."""
_NO_LOCKS_ERRNOS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""The errors of flock on NFS without locks, Lustre without `-o flock`, and file systems that never had it."""
_LEASE_INSTEAD = "the lock is a file that the run rewrites every few seconds"


@contextmanager
def locked(store: Store, *, log: Callable[[str], None], beat_seconds: float = BEAT_SECONDS) -> Iterator[Owner]:
    """Hold the lock of `store` for as long as the context lasts.

    Args:
        store: a run's output.
        log: called before waiting to see whether an owner is alive, and when a dead owner's lock is taken over.
        beat_seconds: the time between two beats of a lease.

    Raises:
        ColophonError: another run holds the lock, or the directory cannot be written.
    """
    owner, files = Owner.this_process(), store.files
    leased = partial(_leased, files, owner, log=log, beat_seconds=beat_seconds)
    with _on_disk(files, owner, without_locks=leased, log=log) if files.is_local else leased():
        yield owner


def owner_of(store: Store) -> Owner | None:
    """The run that works in `store`, without waiting: the owner of a lease may be dead."""
    owner = _read_owner(store.files)
    if owner is None or not store.files.is_local:
        return None if owner is None or owner.is_dead else owner
    try:
        handle = open_regular(store.files.path / LOCK_NAME)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in LOCKED_ERRNOS:
            return owner
        if error.errno in _NO_LOCKS_ERRNOS:
            return None if owner.is_dead else owner
        raise
    else:
        return None
    finally:
        os.close(handle)


def _read_owner(files: RunFiles) -> Owner | None:
    try:
        return files.read_model(Owner, LOCK_NAME, remedy=REMEDY)
    except DamagedFileError:
        return None


def _locked_error(files: RunFiles, owner: Owner | None, *, holder: int | None = None) -> ColophonError:
    """The error for a lock that the process `holder` has, if that is known; the file may name an earlier owner."""
    remedy = "Wait until it ends, or set another output.path"
    if holder is not None and (owner is None or (owner.is_here and owner.pid != holder)):
        name = describe_process(holder)
        return ColophonError(f"{files.root}/{LOCK_NAME}: locked by {name}, which has not named itself. {remedy}")
    run = "another run" if owner is None else f"another run ({owner.describe()})"
    return ColophonError(f"{files.root}: {run} is using it. {remedy}")


@contextmanager
def _on_disk(
    files: RunFiles,
    owner: Owner,
    *,
    without_locks: Callable[[], AbstractContextManager[None]],
    log: Callable[[str], None],
) -> Iterator[None]:
    """The lock of a directory: flock, or `without_locks` where the file system has none."""
    existed = files.path.is_dir()
    try:
        files.path.mkdir(parents=True, exist_ok=True)
        handle = _lock_file_handle(files, log=log)
    except OSError as error:
        raise ColophonError(f"{error.filename or files.root}: cannot be written: {error.strerror}") from error
    try:
        with _flocked(files, owner, handle) if handle is not None else without_locks():
            yield
    finally:
        if not existed:  # empty, when the run ended before it wrote anything
            with suppress(OSError):
                files.path.rmdir()


@contextmanager
def _flocked(files: RunFiles, owner: Owner, handle: int) -> Iterator[None]:
    try:
        os.write(handle, owner.model_dump_json().encode())
        yield
    finally:
        (files.path / LOCK_NAME).unlink(missing_ok=True)
        os.close(handle)


def _lock_file_handle(files: RunFiles, *, log: Callable[[str], None]) -> int | None:
    """Lock and empty the lock file; returns its handle, or None on a file system without locks."""
    path = files.path / LOCK_NAME
    while True:
        handle = open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file_of(handle, path):
                _refuse_hard_links(handle, path)
                os.ftruncate(handle, 0)
                return handle
        except ColophonError:
            os.close(handle)
            raise
        except OSError as error:
            if error.errno in _NO_LOCKS_ERRNOS and os.fstat(handle).st_size == 0 and _is_file_of(handle, path):
                path.unlink(missing_ok=True)  # this call has created it; a lease is never empty
            holder = holder_of(handle)
            os.close(handle)
            if error.errno in LOCKED_ERRNOS:
                raise _locked_error(files, _read_owner(files), holder=holder) from None
            if error.errno not in _NO_LOCKS_ERRNOS:
                raise
            log(f"{files.root}: its file system has no locks (flock: {error.strerror}): {_LEASE_INSTEAD}")
            return None
        os.close(handle)  # the owner deleted the file between open and flock


def _is_file_of(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _refuse_hard_links(handle: int, path: Path) -> None:
    """Refuse a lock file that is also a file elsewhere, which would be emptied."""
    if os.fstat(handle).st_nlink > 1:
        raise OutputPathError(f"{path}: a hard link to a file that has other names too. Remove it")


@contextmanager
def _leased(files: RunFiles, owner: Owner, *, log: Callable[[str], None], beat_seconds: float) -> Iterator[None]:
    while not _created(files, owner):
        other = _read_owner(files)
        if other is not None and not other.is_dead:
            log(f"{files.root}: locked by {other.describe()}; waiting to see whether it is alive")
            if _beats_within(files, other, seconds=_SILENT_BEATS * beat_seconds):
                raise _locked_error(files, _read_owner(files))
        if other is not None:
            log(f"{files.root}: taking over the lock of {other.describe()}, which is dead")
        _delete(files, other)
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(files, owner, ended, beat_seconds), name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(StoreError, OSError):  # the beats have ended anyway; an error of the block must not be hidden
            _delete(files, owner)


def _beat(files: RunFiles, owner: Owner, ended: threading.Event, seconds: float) -> None:
    """Rewrite the lock every few seconds until `ended`, or until another run has it."""
    number = 0
    while not ended.wait(seconds):
        number += 1
        with suppress(Exception):  # of the network; the next beat tries again
            current = _read_owner(files)
            if current is not None and current.token != owner.token:
                return  # this run was silent for too long and has lost the lock
            files.replace_text(LOCK_NAME, owner.model_copy(update={"beat": number}).model_dump_json())


def _created(files: RunFiles, owner: Owner) -> bool:
    """Create the lock unless one exists; whether it is this owner's now."""
    if not files.create_text(LOCK_NAME, owner.model_dump_json()):
        return False
    current = _read_owner(files)
    return current is not None and current.token == owner.token


def _beats_within(files: RunFiles, owner: Owner, *, seconds: float) -> bool:
    """Whether the lock changes within that time; False as soon as it is gone."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pause.wait(seconds / 10)
        current = _read_owner(files)
        if current is None:
            return False
        if current != owner:
            return True
    return False


def _delete(files: RunFiles, owner: Owner | None) -> None:
    """Delete the lock if it is this owner's or cannot be read."""
    current = _read_owner(files)
    if current is None or (owner is not None and current.token == owner.token):
        files.remove(LOCK_NAME)
