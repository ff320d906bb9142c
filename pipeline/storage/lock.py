"""One run at a time in an output directory.

A local directory is locked by the system, which takes the lock back when its owner ends, however it ends; the file only
says who that is. An object store has no such locks: there a small object is rewritten every few seconds, and who finds
one looks whether that goes on. Two that come in the same instant may both go on there, until one finds the other's
lock when it publishes and ends.

A lock alone does not stop the workers of a run that was killed: they may outlive it. So every publication looks whose
the lock is, see `Store.publish`.
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
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage.commits import LOCK_NAME, Store
from colophon.shards.common.errors import ColophonError

BEAT_SECONDS = 10.0
_SILENT_BEATS = 3
"""An owner that let so many pass is dead."""
_IS_LOCKED = (errno.EACCES, errno.EAGAIN)


class Owner(BaseModel):
    """Who holds a lock: the content of its file."""

    model_config = ConfigDict(frozen=True)

    host: str
    pid: int
    since: float
    """Seconds since 1970, by the owner's clock."""
    token: str
    """Of this one holding."""
    beat: int = 0
    """How often the owner has said that it lives; on object stores only."""

    def describe(self) -> str:
        """For a person."""
        age = max(int(time.time() - self.since), 0)
        return f"process {self.pid} on {self.host}, since {age // 3600}:{age // 60 % 60:02}:{age % 60:02}"

    @property
    def is_dead(self) -> bool:
        """Whether it is known to be dead: a process of this machine that is no more."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


def _this_process() -> Owner:
    return Owner(host=socket.gethostname(), pid=os.getpid(), since=time.time(), token=uuid.uuid4().hex)


@contextmanager
def locked(store: Store, *, log: Callable[[str], None], beat_seconds: float = BEAT_SECONDS) -> Iterator[Owner]:
    """Be the only run in `store` for as long as the context lasts.

    Args:
        store: a run's output.
        log: told when a dead owner's lock is taken over, and before waiting to see whether an owner lives.
        beat_seconds: how often an owner says that it lives, on an object store.

    Raises:
        ColophonError: another run works there, or nothing can be written there.
    """
    mine = _this_process()
    held = _locked_directory(store, mine) if store.is_local else _leased(store, mine, log=log, seconds=beat_seconds)
    with held:
        yield mine


def owner_of(store: Store) -> Owner | None:
    """Who works in `store`, as far as can be told at once: on an object store that may be a dead one."""
    found = _read(store)
    if found is None or not store.is_local:
        return None if found is None or found.is_dead else found
    try:
        handle = os.open(store.path / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _IS_LOCKED:
            return found
        raise
    else:
        return None
    finally:
        os.close(handle)


def _read(store: Store) -> Owner | None:
    try:
        return Owner.model_validate_json(store.read_text(LOCK_NAME) or "")
    except ValidationError:
        return None


def _is_held(store: Store, owner: Owner | None) -> ColophonError:
    who = "another run" if owner is None else f"another run ({owner.describe()})"
    return ColophonError(f"{store.root}: {who} works there; wait for its end or choose another output.path")


@contextmanager
def _locked_directory(store: Store, mine: Owner) -> Iterator[None]:
    was_there = store.path.is_dir()
    try:
        store.path.mkdir(parents=True, exist_ok=True)
        handle = _taken(store)
    except OSError as error:
        raise ColophonError(f"{store.root}: cannot be written: {error.strerror}") from error
    try:
        os.write(handle, mine.model_dump_json().encode())
        yield
    finally:
        (store.path / LOCK_NAME).unlink(missing_ok=True)
        os.close(handle)
        if not was_there:  # a run that found a reason to write nothing
            with suppress(OSError):
                store.path.rmdir()


def _taken(store: Store) -> int:
    """A handle of the lock's file, locked and empty."""
    path = store.path / LOCK_NAME
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
                os.ftruncate(handle, 0)
                return handle
        except OSError as error:
            os.close(handle)
            if error.errno in _IS_LOCKED:
                raise _is_held(store, _read(store)) from None
            raise
        os.close(handle)  # its owner has deleted the file between the two calls


@contextmanager
def _leased(store: Store, mine: Owner, *, log: Callable[[str], None], seconds: float) -> Iterator[None]:
    while not _created(store, mine):
        owner = _read(store)
        if owner is not None and not owner.is_dead:
            log(f"{store.root}: locked by {owner.describe()}: looking whether it lives")
            if _beats(store, owner, seconds=_SILENT_BEATS * seconds):
                raise _is_held(store, _read(store))
        if owner is not None:
            log(f"{store.root}: the lock of {owner.describe()} is taken over: it is dead")
        _delete(store, owner)
    ended = threading.Event()

    def beat() -> None:
        number = 0
        while not ended.wait(seconds):
            number += 1
            with suppress(Exception):  # what the network did; the next beat tries again
                found = _read(store)
                if found is not None and found.token != mine.token:
                    return  # it was silent for too long, and is not the owner any more
                store.write_text(LOCK_NAME, mine.model_copy(update={"beat": number}).model_dump_json())

    thread = threading.Thread(target=beat, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(StoreError):  # it falls silent, and what went wrong before is what is to be told
            _delete(store, mine)


def _created(store: Store, owner: Owner) -> bool:
    """Whether the lock was not there and is this owner's now."""
    if store.remote(LOCK_NAME, _exists_now):
        return False
    store.write_text(LOCK_NAME, owner.model_dump_json())
    found = _read(store)
    return found is not None and found.token == owner.token


def _beats(store: Store, owner: Owner, *, seconds: float) -> bool:
    """Whether the lock changes within that time; one that is gone or somebody else's is not the owner's any more."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pause.wait(seconds / 10)
        found = _read(store)
        if found is None:
            return False
        if found != owner:
            return True
    return False


def _delete(store: Store, owner: Owner | None) -> None:
    """Delete the lock if it is still this owner's; None: whatever cannot be read as a lock."""
    found = _read(store)
    if found is None or owner is None or found.token == owner.token:
        with suppress(FileNotFoundError):
            store.remote(LOCK_NAME, lambda filesystem, full: filesystem.rm_file(full))


def _exists_now(filesystem: Any, path: str) -> bool:
    filesystem.invalidate_cache()  # another process may have made it
    return bool(filesystem.exists(path))
