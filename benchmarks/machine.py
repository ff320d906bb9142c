"""The machine of a run, without names of hosts, users or directories."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def machine() -> dict[str, object]:
    """Return processor, cores, memory, system and Python version."""
    return {
        "cpu": _first_match(Path("/proc/cpuinfo"), r"model name\s*:\s*(.+)") or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def in_words(found: dict[str, object]) -> str:
    """Return `machine()` as one phrase."""
    return f"{found['cpu']}, {found['cores']} cores, {found['memory_gb']} GB, {found['system']}"


def _first_match(path: Path, pattern: str) -> str | None:
    try:
        match = re.search(pattern, path.read_text(errors="replace"))
    except OSError:
        return None
    return match[1].strip() if match else None
