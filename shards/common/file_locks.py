"""Locks of the system (flock) on files and directories: waited for with a limit, and the process that holds one.

Anybody who may read a file can hold its lock, so a wait without a limit would let another user stop a run for ever.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import time
from pathlib import Path

from colophon.shards.common.errors import ColophonError

LOCKED_ERRNOS = (errno.EACCES, errno.EAGAIN)
_LONGEST_PAUSE_SECONDS = 0.25


class LockedError(ColophonError):
    """A lock that another process has held for too long; the message names its path and the process."""


def flock_within(handle: int, path: Path, *, seconds: float) -> bool:
    """Lock an open file or directory for this process alone; False on a file system without locks.

    The time begins again whenever a different process has the lock, so that many that take turns can all wait.

    Args:
        handle: the open file; closing it releases the lock.
        path: for the error.
        seconds: how long one other process may hold it.

    Raises:
        LockedError: a process has held it for longer.
    """
    holder, deadline, pause = "", time.monotonic() + seconds, 0.001
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in LOCKED_ERRNOS:
                return False
        else:
            return True
        previous, holder = holder, describe_process(holder_of(handle))
        if holder != previous:
            deadline = time.monotonic() + seconds
        elif time.monotonic() >= deadline:
            raise LockedError(f"{path}: locked by {holder} for more than {seconds:g} seconds. End it, and run again")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def describe_process(pid: int | None) -> str:
    """Human-readable: `process 123 of alice`, or `another process` for None."""
    if pid is None:
        return "another process"
    try:
        return f"process {pid} of {user_name(Path(f'/proc/{pid}').stat().st_uid)}"
    except OSError:
        return f"process {pid}"


def holder_of(handle: int) -> int | None:
    """The process that holds the lock of an open file.

    None if it is unknown: on systems without `/proc/locks`, on network file systems, in other containers.
    """
    status = os.fstat(handle)
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    # "7: FLOCK  ADVISORY  WRITE 3340 fe:00:2818994 0 EOF"; a line with "->" is of a process that waits
    fields = [line.split() for line in lines if "->" not in line]
    pids = [int(line[4]) for line in fields if line[1] == "FLOCK" and line[5] == inode]
    return next((pid for pid in pids if pid > 0), None)


def user_name(uid: int) -> str:
    """The name of a user, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
