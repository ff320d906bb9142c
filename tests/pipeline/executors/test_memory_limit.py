"""How much memory new processes may take: that of the machine, and the limits of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from colophon.pipeline.executors.memory_limit import available_memory, cgroup_memory_left
from tests.pipeline.executors.test_cpus import V1_MEMORY, V2_MOUNT, machine

MIB = 1 << 20


@pytest.mark.parametrize(
    ("groups", "mount", "files", "expected"),
    [
        ("0::/a\n", V2_MOUNT, {"a/memory.max": f"{100 * MIB}", "a/memory.current": f"{30 * MIB}"}, 70 * MIB),
        (
            "0::/a\n",
            V2_MOUNT,
            {
                "a/memory.max": f"{100 * MIB}",
                "a/memory.current": f"{90 * MIB}",
                "a/memory.stat": f"anon 5\ninactive_file {40 * MIB}\n",
            },
            50 * MIB,
        ),
        ("0::/a\n", V2_MOUNT, {"a/memory.max": "max\n", "a/memory.current": "5"}, None),
        (
            "0::/a/b\n",
            V2_MOUNT,
            {"a/memory.max": f"{MIB}", "a/memory.current": f"{2 * MIB}", "a/b/memory.max": "max"},
            0,
        ),
        (
            "4:memory:/\n",
            V1_MEMORY,
            {"memory/memory.limit_in_bytes": f"{8 * MIB}", "memory/memory.usage_in_bytes": f"{MIB}"},
            7 * MIB,
        ),
        ("4:memory:/\n", V1_MEMORY, {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("nonsense\n", "nonsense", {}, None),
    ],
)
def test_the_tightest_group_counts(
    tmp_path: Path, groups: str, mount: str, files: dict[str, str], expected: int | None
) -> None:
    assert cgroup_memory_left(machine(tmp_path, groups=groups, mounts=[mount], files=files)) == expected


def test_this_machine_has_some_memory_left() -> None:
    assert available_memory() > MIB
