"""The memory that processes of this machine may still take: what is available, up to the limit of the control group."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from colophon.pipeline.executors.cpus import control_groups

TYPICAL_WORKER_BYTES = 450 << 20
"""Memory of a worker where nothing was measured: on web text with Tekken one has 380 to 420 MB of its own."""
_LIMITS = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
"""The files of a group's limit and of its use, in version 2 and version 1 of control groups."""


def available_memory() -> int:
    """Return the bytes that new processes can take before the system swaps or ends one."""
    available = _memory_of_the_machine()
    left = cgroup_memory_left()
    return available if left is None else min(available, left)


def _memory_of_the_machine() -> int:
    with suppress(OSError, ValueError, IndexError):  # no Linux
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            name, amount, *_ = line.split()
            if name == "MemAvailable:":
                return int(amount) << 10
    import psutil  # takes a while to import, and a plan needs nothing else of it

    return int(psutil.virtual_memory().available)


def cgroup_memory_left(root: Path = Path("/")) -> int | None:
    """Return the bytes that this process's control groups have left, files in the page cache not counted as used.

    None: no group has a limit.

    Args:
        root: the directory that holds `proc/self` and the mounted control groups.
    """
    left: list[int] = []
    with suppress(OSError, ValueError):  # no Linux, or a form of these files that is not known
        for directory in control_groups("memory", root):
            with suppress(OSError, ValueError):
                left += _left_of(directory)
    return min(left, default=None)


def _left_of(directory: Path) -> list[int]:
    for limit_file, usage_file in _LIMITS.items():
        if (directory / limit_file).is_file():
            limit = (directory / limit_file).read_text(encoding="utf-8").strip()
            if limit == "max" or int(limit) >= 1 << 60:  # version 1 writes a very large number for none
                return []
            used = int((directory / usage_file).read_text(encoding="utf-8")) - _reclaimable(directory)
            return [max(int(limit) - used, 0)]
    return []


def _reclaimable(directory: Path) -> int:
    """Return the bytes of the page cache that the system drops when processes need memory."""
    with suppress(OSError, ValueError):
        for line in (directory / "memory.stat").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0
