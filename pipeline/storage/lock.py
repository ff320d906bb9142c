"""The lock of an output directory: one run at a time, or one command for each of its shards.

On a disk the system holds the lock (flock) and releases it when the owner's process ends, however it ends; the lock
file only names the owner. Object stores and some network file systems have no locks: there the owner rewrites a small
file every few seconds, a lease, and a run that finds one waits to see whether it still changes. Where the store has
conditional writes, one of two runs that start in the same instant creates the file, and one of two that find a dead
owner takes its place in the output's head (see `storage.head`). Elsewhere both may continue, until one of them finds
the other's lock when it publishes, and ends.

The lock does not stop workers that outlive a killed run. Therefore every publication checks the owner, see
`Store.publish`.

A shard (see `storage.shard`) has a lock of its own. Each command first takes its lock and then searches for locks that
exclude it: of two that start in the same instant at least one finds the other, and is refused. Locks that dead commands
left are deleted, so that nothing that outlives them publishes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.files import LocalFiles, RemoteFiles
from colophon.pipeline.storage.head import Heads
from colophon.pipeline.storage.owner import Owner
from colophon.pipeline.storage.run_files import RunFiles
from colophon.pipeline.storage.shard import LOCK_NAME, SHARDS, Shard, excludes, shard_of_lock
from colophon.shards.common.errors import ColophonError, DamagedFileError
from colophon.shards.common.file_locks import LOCKED_ERRNOS, describe_process, holder_of
from colophon.shards.common.output_paths import OutputPathError, open_regular
from colophon.shards.records import REMEDY

BEAT_SECONDS = 10.0
_SILENT_BEATS = 3
"""An owner that misses this many beats is dead."""
_NO_LOCKS_ERRNOS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""The errors of flock on NFS without locks, Lustre without `-o flock`, and file systems that never had it."""
_LEASE_INSTEAD = "the lock is a file that the run rewrites every few seconds"


@dataclass(frozen=True)
class _Lock:
    """A lock of an output: the file at `name` that names its owner."""

    files: RunFiles
    name: str

    def owner(self) -> Owner | None:
        """The owner that the file names; None without a file that can be read."""
        try:
            return self.files.read_model(Owner, self.name, remedy=REMEDY)
        except DamagedFileError:
            return None

    def create(self, owner: Owner) -> bool:
        """Create the file unless it exists; whether it is this owner's now."""
        self.files.create_text(self.name, owner.model_dump_json())
        current = self.owner()
        return current is not None and current.token == owner.token

    def delete(self, owner: Owner | None) -> None:
        """Delete the file if it is this owner's or cannot be read."""
        current = self.owner()
        if current is None or (owner is not None and current.token == owner.token):
            self.files.remove(self.name)

    def error(self, owner: Owner | None, *, pid: int | None = None) -> ColophonError:
        """The error for a lock that the process `pid` has, if that is known; the file may name an earlier owner."""
        remedy = "Wait until it ends, or set another output.path"
        if pid is not None and (owner is None or (owner.is_here and owner.pid != pid)):
            name = describe_process(pid)
            place = f"{self.files.root}/{self.name}"
            return ColophonError(f"{place}: locked by {name}, which has not named itself. {remedy}")
        shard = shard_of_lock(self.name)
        name = "another run" if shard is None else f"shard {shard}"
        holder = name if owner is None else f"{name} ({owner.describe()})"
        return ColophonError(f"{self.files.root}: {holder} is using it. {remedy}")


@contextmanager
def locked(
    store: Store, *, log: Callable[[str], None], recipe: str = "", beat_seconds: float = BEAT_SECONDS
) -> Iterator[Owner]:
    """Hold the lock of `store` for as long as the context lasts: that of the output, or of `store.shard`.

    Args:
        store: a run's output.
        log: called before waiting to see whether an owner is alive, and when a dead owner's lock is taken over.
        recipe: see `Owner.recipe`.
        beat_seconds: the time between two beats of a lease.

    Raises:
        ColophonError: another command holds the lock or one that excludes it, or the directory cannot be written.
    """
    owner, files = Owner.this_process(recipe=recipe), store.files
    lock = _Lock(files, store.lock_name)
    leased = partial(_leased, lock, owner, log=log, beat_seconds=beat_seconds)
    with _on_disk(lock, owner, without_locks=leased, log=log) if files.is_local else leased():
        others = [other for other in _locks(files) if excludes(lock.name, other.name)]
        _end(others, log=log, beat_seconds=beat_seconds)
        if store.shard is not None and (heads := _heads(lock, owner)) is not None and heads.holder() is not None:
            heads.change(lambda head: head.ending(lock.name))  # a whole run closes all others when it moves records
        yield owner


def owners_of(store: Store) -> dict[Shard | None, Owner]:
    """The commands that work in `store`, without waiting: by shard, None for a whole run.

    The owner of a lease may be dead.
    """
    owners = {shard_of_lock(lock.name): _living(lock) for lock in _locks(store.files)}
    return {shard: owner for shard, owner in owners.items() if owner is not None}


def _locks(files: RunFiles) -> list[_Lock]:
    """The whole run's lock, which may be missing, and those of shards."""
    paths = (f"{SHARDS}/{name}" for name in files.names(SHARDS))
    return [_Lock(files, LOCK_NAME), *(_Lock(files, path) for path in paths if shard_of_lock(path) is not None)]


def _living(lock: _Lock) -> Owner | None:
    owner = lock.owner()
    if owner is None or not lock.files.is_local:
        return None if owner is None or owner.is_dead else owner
    try:
        handle = open_regular(_path(lock))
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


def _path(lock: _Lock) -> Path:
    """The file of a lock on a disk."""
    assert isinstance(lock.files, LocalFiles)
    return lock.files.inside(lock.name)


def _end(locks: Sequence[_Lock], *, log: Callable[[str], None], beat_seconds: float) -> None:
    """Delete the locks of dead owners.

    Raises:
        ColophonError: an owner is alive.
    """
    leases = [lock for lock in locks if not (lock.files.is_local and _is_free(lock))]
    owners = [(lock, lock.owner()) for lock in leases]
    waiting = {lock: owner for lock, owner in owners if owner is not None and not owner.is_dead}
    for lock, alive in waiting.items():
        log(f"{lock.files.root}: locked by {alive.describe()}; waiting to see whether it is alive")
    if (beating := _first_to_beat(waiting, seconds=_SILENT_BEATS * beat_seconds)) is not None:
        raise beating.error(beating.owner())
    for lock, owner in owners:
        if owner is not None:
            lock.delete(owner)


def _is_free(lock: _Lock) -> bool:
    """Delete a lock of a disk that nobody holds; False on a file system without locks.

    Raises:
        ColophonError: somebody holds it.
    """
    path = _path(lock)
    try:
        handle = open_regular(path)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: several shards may look at the same time
        if _is_file_of(handle, path):
            path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in LOCKED_ERRNOS:
            raise lock.error(lock.owner(), pid=holder_of(handle)) from None
        if error.errno not in _NO_LOCKS_ERRNOS:
            raise
        return False
    finally:
        os.close(handle)
    return True


@contextmanager
def _on_disk(
    lock: _Lock, owner: Owner, *, without_locks: Callable[[], AbstractContextManager[None]], log: Callable[[str], None]
) -> Iterator[None]:
    """The lock of a directory: flock, or `without_locks` where the file system has none."""
    root = lock.files.path
    existed = root.is_dir()
    try:
        root.mkdir(parents=True, exist_ok=True)
        path = _path(lock)
        path.parent.mkdir(exist_ok=True)
        handle = _lock_file_handle(lock, path, log=log)
    except OSError as error:
        raise ColophonError(f"{error.filename or root}: cannot be written: {error.strerror}") from error
    try:
        with _flocked(path, owner, handle) if handle is not None else without_locks():
            yield
    finally:
        if not existed:  # empty, when the run ended before it wrote anything
            with suppress(OSError):
                root.rmdir()


@contextmanager
def _flocked(path: Path, owner: Owner, handle: int) -> Iterator[None]:
    try:
        try:
            os.write(handle, owner.model_dump_json().encode())
        except OSError as error:
            raise ColophonError(f"{path}: cannot be written: {error.strerror}") from error
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _lock_file_handle(lock: _Lock, path: Path, *, log: Callable[[str], None]) -> int | None:
    """Lock and empty the lock file; returns its handle, or None on a file system without locks."""
    root = lock.files.root
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
            pid = holder_of(handle)
            os.close(handle)
            if error.errno in LOCKED_ERRNOS:
                raise lock.error(lock.owner(), pid=pid) from None
            if error.errno not in _NO_LOCKS_ERRNOS:
                raise
            log(f"{root}: its file system has no locks (flock: {error.strerror}): {_LEASE_INSTEAD}")
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
def _leased(lock: _Lock, owner: Owner, *, log: Callable[[str], None], beat_seconds: float) -> Iterator[None]:
    while not _take_lease(lock, owner, log=log, beat_seconds=beat_seconds):
        pass
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(lock, owner, ended, beat_seconds), name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(StoreError, OSError):  # the beats have ended anyway; an error of the block must not be hidden
            lock.delete(owner)


def _take_lease(lock: _Lock, owner: Owner, *, log: Callable[[str], None], beat_seconds: float) -> bool:
    """Create a lock, or delete that of a dead owner; whether it is this owner's now.

    Raises:
        ColophonError: another owner is alive.
    """
    root, heads = lock.files.root, _heads(lock, owner)
    before = None if heads is None else heads.holder()
    if lock.create(owner):
        if heads is None or (before is None and _ignores_conditions(lock, owner)) or heads.take(after=before):
            return True
        lock.delete(owner)
        return False
    other = lock.owner()
    if other is not None and not other.is_dead:
        log(f"{root}: locked by {other.describe()}; waiting to see whether it is alive")
        if _first_to_beat({lock: other}, seconds=_SILENT_BEATS * beat_seconds):
            raise lock.error(lock.owner())
    if heads is not None and not (heads.holder() is None if before is None else heads.take(after=before)):
        return False  # another run has taken over in the meantime
    if other is not None:
        log(f"{root}: taking over the lock of {other.describe()}, which is dead")
    lock.delete(other)
    return False


def _ignores_conditions(lock: _Lock, owner: Owner) -> bool:
    """Whether the store creates a lock that exists."""
    assert isinstance(lock.files, RemoteFiles)
    return lock.files.create_once(lock.name, owner.model_dump_json())


def _heads(lock: _Lock, owner: Owner) -> Heads | None:
    """The heads of an output on a store that may have conditional writes."""
    files = lock.files
    return Heads(files, lock.name, owner.token) if isinstance(files, RemoteFiles) and files.may_create_once else None


def _beat(lock: _Lock, owner: Owner, ended: threading.Event, seconds: float) -> None:
    """Rewrite the lock every few seconds until `ended`, or until it is no longer this owner's."""
    number = 0
    while not ended.wait(seconds):
        number += 1
        with suppress(Exception):  # of the network; the next beat tries again
            version, current = lock.files.version(lock.name), lock.owner()
            if current is None or current.token != owner.token:
                return  # this run was silent for too long and has lost the lock
            text = owner.model_copy(update={"beat": number}).model_dump_json()
            lock.files.replace_version(lock.name, text, version=version)


def _first_to_beat(owners: Mapping[_Lock, Owner], *, seconds: float) -> _Lock | None:
    """The first lock that changes within that time; None as soon as all are gone."""
    pause, waiting = threading.Event(), dict(owners)
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        pause.wait(seconds / 10)
        for lock, owner in owners.items():
            current = lock.owner() if lock in waiting else owner
            if current is None:
                del waiting[lock]
            elif current != owner:
                return lock
    return None
