"""Runs the parts one after the other, each in a process of its own, until the time is over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.gpu.hardware import hardware
from benchmarks.gpu.plan import Part, Size, command_line

RUN = "run.json"
"""The hardware, the date and the end of each part."""
COMPLETE = "complete"
"""The end of a part that exits with 0."""


def run_parts(
    parts: Iterable[Part], *, output: Path, minutes: float, size: Size = "full", log: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run the parts, with result files and logs in `output`; return what is in `run.json`, which is written after each.

    Args:
        parts: in the order of worth.
        output: a directory; the result files of these parts in it are replaced.
        minutes: the end of the run. A part that has not enough of it left is not started.
        size: of the parts.
        log: receives one line for each part.
    """
    output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    run: dict[str, Any] = {
        "format": 1,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "minutes": minutes,
        "size": size,
        **hardware(),
        "parts": {},
    }
    for part in parts:
        run["parts"][part.name] = ended = _run_part(part, output=output, left=end - time.monotonic())
        (output / RUN).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
        log(f"{part.name}: {ended['end']}, {ended['seconds']:.0f} s")
    return run


def _run_part(part: Part, *, output: Path, left: float) -> dict[str, Any]:
    results, seconds = output / f"{part.name}.jsonl", min(part.limit_s, left)
    results.unlink(missing_ok=True)
    if left < part.needs_s:
        return {"end": "no time left", "seconds": 0.0}
    started = time.monotonic()
    with (output / f"{part.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command_line(part, output=results, seconds=seconds),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=seconds)
            end = COMPLETE if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            end = f"stopped after {seconds:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it started: compilers, contestants
            process.wait()
    found: dict[str, Any] = {"end": end, "seconds": time.monotonic() - started}
    return found if end == COMPLETE else {**found, "last_line": _last_line(output / f"{part.name}.log")}


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][-300:] if lines else ""
