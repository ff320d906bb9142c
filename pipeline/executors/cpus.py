"""The CPUs that this process may use: those of its affinity, up to the quota of its control group (cgroup v1 and v2).

A container of half the CPUs of a machine has the affinity of all of them; more workers than its quota only take turns.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def num_cpus_here() -> int:
    """Return the number of CPUs that this process may use, at least 1. A quota of 1.5 CPUs counts as 2."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cpus()
    return allowed if quota is None else max(min(allowed, math.ceil(quota)), 1)


def cgroup_cpus(root: Path = Path("/")) -> float | None:
    """Return the smallest CPU quota of this process's control groups, in CPUs; None without one.

    Args:
        root: the directory that holds `proc/self` and the mounted control groups.
    """
    quotas: list[float] = []
    with suppress(OSError, ValueError):  # no Linux, or a form of these files that is not known
        for directory in control_groups("cpu", root):
            with suppress(OSError, ValueError):
                quotas += _quota_of(directory)
    return min(quotas, default=None)


def control_groups(resource: str, root: Path = Path("/")) -> Iterator[Path]:
    """Yield the directories of this process's control groups that may limit `resource`, and those above them.

    Args:
        resource: the controller, `cpu` or `memory`.
        root: see `cgroup_cpus`.

    Raises:
        OSError, ValueError: there are no control groups, or their files have a form that is not known.
    """
    groups = _groups(root)
    for line in (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        # "34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu": its 4th and 5th fields are root and place.
        fields, _, file_system = line.partition(" - ")
        kind, *_, options = file_system.split()
        controller = "" if kind == "cgroup2" else resource
        if kind not in ("cgroup", "cgroup2") or controller not in groups or controller not in ("", *options.split(",")):
            continue
        mounted_root, place = fields.split()[3:5]
        mount = root / place.lstrip("/")
        inside = os.path.relpath(groups[controller], mounted_root)
        directory = mount if inside.startswith("..") else mount / inside
        while directory.is_relative_to(mount):
            yield directory
            directory = directory.parent


def _groups(root: Path) -> dict[str, str]:
    """The process's group by controller; that of version 2 has an empty name."""
    groups: dict[str, str] = {}
    for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)  # "4:cpu,cpuacct:/docker/1f"
        groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def _quota_of(directory: Path) -> list[float]:
    """The quota of one group in CPUs, if it has one."""
    if (directory / "cpu.max").is_file():
        quota, period = (directory / "cpu.max").read_text(encoding="utf-8").split()  # "150000 100000" or "max 100000"
    elif (directory / "cpu.cfs_quota_us").is_file():
        quota = (directory / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()  # -1: none
        period = (directory / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
    else:
        return []
    return [int(quota) / int(period)] if quota != "max" and int(quota) > 0 else []
