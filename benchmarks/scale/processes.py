"""Measured processes, and the summary of what they took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.summary import Spread, line_fit

_ROOT = Path(__file__).parents[2]


def timed(command: Sequence[str]) -> tuple[str, dict[str, float]]:
    """Run a module as a command; return its output, and its seconds, CPU seconds and peak of memory."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=_ROOT, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return output, {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1000,
    }


def summary(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """The spread of each quantity by number of partitions, and its line over all of them with R²."""
    sizes = {
        name: {key: Spread.of([run[key] for run in of_size]).as_dict() for key in of_size[0] if key != "partitions"}
        for name, of_size in runs.items()
    }
    partitions = [float(name) for name, of_size in runs.items() for _ in of_size]
    lines = {
        key: dict(
            zip(
                ("start", "per_partition", "r_squared"),
                line_fit(partitions, [run[key] for of_size in runs.values() for run in of_size]),
                strict=True,
            )
        )
        for key in ("seconds", "cpu_seconds", "peak_mb")
    }
    return {"sizes": sizes, "lines": lines}
