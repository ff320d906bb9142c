"""Locks of files and directories that another process holds."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from colophon.shards.common import file_locks
from colophon.shards.common.file_locks import LockedError, describe_process, flock_within, holder_of, user_name

HOLD = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
ON_LINUX = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux shows who holds a lock")


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of `tmp_path`."""
    command = [sys.executable, "-S", "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path, os.O_RDONLY)
    yield opened
    os.close(opened)


@ON_LINUX
def test_a_lock_of_another_process_is_waited_for_and_named(
    holder: subprocess.Popen[str], handle: int, tmp_path: Path
) -> None:
    assert holder_of(handle) == holder.pid
    user = pwd.getpwuid(os.getuid()).pw_name
    message = f"^{tmp_path}: locked by process {holder.pid} of {user} for more than 0 seconds. End it, and run again$"
    with pytest.raises(LockedError, match=message):
        flock_within(handle, tmp_path, seconds=0)
    holder.communicate("")
    assert flock_within(handle, tmp_path, seconds=60)
    assert holder_of(handle) == os.getpid()


def test_the_time_is_that_of_one_holder(
    holder: subprocess.Popen[str], handle: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["process 1", "process 2", "process 3", "process 4", "process 4"])
    monkeypatch.setattr(file_locks, "describe_process", lambda pid: next(names))
    with pytest.raises(LockedError, match="locked by process 4 for more"):
        flock_within(handle, tmp_path, seconds=0)


def test_a_disk_without_locks(handle: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refused)
    assert flock_within(handle, tmp_path, seconds=60) is False


def test_what_is_unknown(handle: int) -> None:
    assert holder_of(handle) is None
    assert describe_process(None) == "another process"
    assert describe_process(2**22 + 1) == f"process {2**22 + 1}"  # above the highest id
    assert user_name(2**31 - 5) == str(2**31 - 5)
