"""The lock of an output directory: one run at a time.

On a disk the system holds the lock (flock) and releases it when the owner's process ends, however it ends; the lock
file only names the owner. An object store has no locks: the owner rewrites a small object every few seconds, and a run
that finds one waits to see whether it still changes. Two runs that start there in the same instant may both continue,
until one of them finds the other's lock when it publishes, and ends.

The lock does not stop workers that outlive a killed run. Therefore every publication checks the owner, see
`Store.publish`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pydantic import BaseModel, ConfigDict, ValidationError

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage.commits import LOCK_NAME, Store
from colophon.pipeline.storage.files import RemoteFiles, RunFiles
from colophon.shards.common.errors import ColophonError

BEAT_SECONDS = 10.0
_SILENT_BEATS = 3
"""An owner that misses this many beats is dead."""
_LOCKED_ERRNOS = (errno.EACCES, errno.EAGAIN)


class Owner(BaseModel):
    """The owner of a lock: the content of the lock file."""

    model_config = ConfigDict(frozen=True)

    host: str
    pid: int
    since: float
    """Seconds since 1970, by the owner's clock."""
    token: str
    """A random name of this holding of the lock."""
    beat: int = 0
    """The number of beats so far; on object stores only."""

    def describe(self) -> str:
        """Human-readable: `process 123 on host, since 0:01:02`."""
        age = max(int(time.time() - self.since), 0)
        return f"process {self.pid} on {self.host}, since {age // 3600}:{age // 60 % 60:02}:{age % 60:02}"

    @property
    def is_dead(self) -> bool:
        """Whether this is a process of this machine that has ended; False for other machines."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # alive, of a different user
            return False
        return False


def _this_process() -> Owner:
    return Owner(host=socket.gethostname(), pid=os.getpid(), since=time.time(), token=uuid.uuid4().hex)


@contextmanager
def locked(store: Store, *, log: Callable[[str], None], beat_seconds: float = BEAT_SECONDS) -> Iterator[Owner]:
    """Hold the lock of `store` for as long as the context lasts.

    Args:
        store: a run's output.
        log: called before waiting to see whether an owner is alive, and when a dead owner's lock is taken over.
        beat_seconds: the time between two beats of an owner, on an object store.

    Raises:
        ColophonError: another run holds the lock, or the directory cannot be written.
    """
    owner, files = _this_process(), store.files
    if isinstance(files, RemoteFiles):
        held = _leased(files, owner, log=log, beat_seconds=beat_seconds)
    else:
        held = _flocked(files, owner)
    with held:
        yield owner


def owner_of(store: Store) -> Owner | None:
    """The run that works in `store`, without waiting: on an object store it may be dead."""
    owner = _read_owner(store.files)
    if owner is None or not store.files.is_local:
        return None if owner is None or owner.is_dead else owner
    try:
        handle = os.open(store.files.path / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _LOCKED_ERRNOS:
            return owner
        raise
    else:
        return None
    finally:
        os.close(handle)


def _read_owner(files: RunFiles) -> Owner | None:
    try:
        return Owner.model_validate_json(files.read_text(LOCK_NAME) or "")
    except ValidationError:
        return None


def _locked_error(files: RunFiles, owner: Owner | None) -> ColophonError:
    run = "another run" if owner is None else f"another run ({owner.describe()})"
    return ColophonError(f"{files.root}: {run} is using it. Wait until it ends, or set another output.path")


@contextmanager
def _flocked(files: RunFiles, owner: Owner) -> Iterator[None]:
    existed = files.path.is_dir()
    try:
        files.path.mkdir(parents=True, exist_ok=True)
        handle = _lock_file_handle(files)
    except OSError as error:
        raise ColophonError(f"{files.root}: cannot be written: {error.strerror}") from error
    try:
        os.write(handle, owner.model_dump_json().encode())
        yield
    finally:
        (files.path / LOCK_NAME).unlink(missing_ok=True)
        os.close(handle)
        if not existed:  # empty, when the run ended before it wrote anything
            with suppress(OSError):
                files.path.rmdir()


def _lock_file_handle(files: RunFiles) -> int:
    """Lock and empty the lock file; returns its handle."""
    path = files.path / LOCK_NAME
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
                os.ftruncate(handle, 0)
                return handle
        except OSError as error:
            os.close(handle)
            if error.errno in _LOCKED_ERRNOS:
                raise _locked_error(files, _read_owner(files)) from None
            raise
        os.close(handle)  # the owner deleted the file between open and flock


@contextmanager
def _leased(files: RemoteFiles, owner: Owner, *, log: Callable[[str], None], beat_seconds: float) -> Iterator[None]:
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
        with suppress(StoreError):  # the beats have ended anyway, and an error of the block must not be hidden
            _delete(files, owner)


def _beat(files: RemoteFiles, owner: Owner, ended: threading.Event, seconds: float) -> None:
    """Rewrite the lock every few seconds until `ended`, or until another run has it."""
    number = 0
    while not ended.wait(seconds):
        number += 1
        with suppress(Exception):  # of the network; the next beat tries again
            current = _read_owner(files)
            if current is not None and current.token != owner.token:
                return  # this run was silent for too long and has lost the lock
            files.replace_text(LOCK_NAME, owner.model_copy(update={"beat": number}).model_dump_json())


def _created(files: RemoteFiles, owner: Owner) -> bool:
    """Create the lock unless one exists; whether it is this owner's now."""
    if files.exists_now(LOCK_NAME):
        return False
    files.replace_text(LOCK_NAME, owner.model_dump_json())
    current = _read_owner(files)
    return current is not None and current.token == owner.token


def _beats_within(files: RemoteFiles, owner: Owner, *, seconds: float) -> bool:
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


def _delete(files: RemoteFiles, owner: Owner | None) -> None:
    """Delete the lock if it is this owner's or cannot be read; None: in any case."""
    current = _read_owner(files)
    if current is None or owner is None or current.token == owner.token:
        files.remove(LOCK_NAME)
