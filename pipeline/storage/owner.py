"""The owner of a run's lock: which process, of whom, on which machine, and whether it has ended.

Two containers may have one host name and the same process ids, so a process is known by the machine's boot, the
namespace of its id, its id and its start. Where the system does not show these, nobody is taken for dead: a lease
then waits until its owner is silent.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from colophon.shards.common.file_locks import user_name

_START_FIELD = 19
"""The start of a process in `/proc/<pid>/stat`, counted from the field after the name."""


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
    """The number of beats of a lease so far."""
    user: str = ""
    machine: str = ""
    """The boot of the machine and the namespace of process ids; empty where the system does not show them."""
    started: int | None = None
    """Start of the process, in ticks of the clock since the boot."""
    recipe: str = ""
    """Digest of what the command's recipe says of files, see `ResolvedRecipe.digest`; empty where it is unknown."""

    @classmethod
    def this_process(cls, *, recipe: str = "") -> Owner:
        """This process, with a new token."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            pid=pid,
            since=time.time(),
            token=uuid.uuid4().hex,
            user=user_name(os.getuid()),
            machine=this_machine(),
            started=_start_of(pid),
            recipe=recipe,
        )

    def describe(self) -> str:
        """Human-readable: `process 123 on host, user alice, since 0:01:02`."""
        age = max(int(time.time() - self.since), 0)
        user = f", user {self.user}" if self.user else ""
        return f"process {self.pid} on {self.host}{user}, since {age // 3600}:{age // 60 % 60:02}:{age % 60:02}"

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this boot of this machine, with an id of the same namespace."""
        return bool(self.machine) and self.machine == this_machine()

    @property
    def is_dead(self) -> bool:
        """Whether this is a process of this machine that has ended; False for all that cannot be known."""
        if not self.is_here:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # alive, of a different user
            pass
        started = _start_of(self.pid)
        return None not in (started, self.started) and started != self.started  # a later process has its id


def this_machine() -> str:
    """The boot of this machine and this process's namespace of process ids; empty where the system shows neither."""
    try:
        if str(Path("/proc/self").readlink()) != str(os.getpid()):  # of a different namespace
            return ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_of(pid: int) -> int | None:
    """The start of a process in ticks since the boot; None where it is unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return int(stat.rpartition(")")[2].split()[_START_FIELD])  # a name may hold blanks and parentheses
    except (OSError, ValueError, IndexError):
        return None
