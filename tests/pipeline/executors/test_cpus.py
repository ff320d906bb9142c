"""How many CPUs a process may use: its affinity, and the quotas of control groups in the files that Linux shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from colophon.pipeline.executors import cpus
from colophon.pipeline.executors.cpus import cgroup_cpus, num_cpus_here

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "34 31 0:31 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"


def machine(root: Path, *, groups: str, mounts: list[str], files: dict[str, str]) -> Path:
    """A directory with the files of a machine."""
    texts = {"proc/self/cgroup": groups, "proc/self/mountinfo": "".join(f"{line}\n" for line in mounts)}
    for name, text in {**texts, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "expected"),
    [
        ("0::/\n", [V2_MOUNT], {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", [V2_MOUNT], {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", [V2_MOUNT], {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2.0),
        ("0::/a/b\n", [V2_MOUNT], {"a/cpu.max": "200000 100000", "a/b/cpu.max": "50000 100000"}, 0.5),
        (
            "4:cpu,cpuacct:/docker/1f\n0::/\n",
            [V1_MEMORY, V1_MOUNT.format(root="/docker/1f")],  # in a container the mount shows its own group alone
            {"cpu,cpuacct/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            3.0,
        ),
        (
            "4:cpu,cpuacct:/job\n",
            [V1_MOUNT.format(root="/")],
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "-1", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"},
            None,
        ),
        ("0::/../elsewhere\n", [V2_MOUNT], {"cpu.max": "100000 100000"}, 1.0),
        ("nonsense\n", ["nonsense"], {}, None),
    ],
)
def test_the_smallest_quota_counts(
    tmp_path: Path, groups: str, mounts: list[str], files: dict[str, str], expected: float | None
) -> None:
    assert cgroup_cpus(machine(tmp_path, groups=groups, mounts=mounts, files=files)) == expected


def test_a_machine_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cgroup_cpus(tmp_path) is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (0.2, 1), (1.5, 2), (3.0, 3), (64.0, 8)])
def test_workers_are_as_many_as_the_quota_rounded_up(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(cpus, "cgroup_cpus", lambda: quota)
    assert num_cpus_here() == expected


@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is missing")
def test_a_process_that_may_use_one_cpu_has_one_worker() -> None:
    cpu = min(os.sched_getaffinity(0))
    ask = "from colophon.pipeline.executors.cpus import num_cpus_here; print(num_cpus_here())"
    command = ["taskset", "-c", str(cpu), sys.executable, "-c", ask]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"
