"""Runs one command: measures its wall time and peak memory, and ends processes that outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory import MARKER, Peak, ProcessTree, Sampler

_LINGER_SECONDS = 30.0
_DYING_SECONDS = 10.0
_LOG_TAIL = 2000


class CommandError(RuntimeError):
    """A contestant ended with an error; the message ends with the tail of its log."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of one command."""

    wall_seconds: float
    """From starting the command to its end: what a user waits for."""
    tree_seconds: float
    """From starting the command to the end of the last process of its tree."""
    peak: Peak | None
    """None if memory was not measured, or cannot be."""


def run_measured(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    memory: bool = False,
) -> Measured:
    """Run `command` in a fresh process; its output goes to `log`. Processes that outlive it by 30 s are killed.

    With `memory`, samples find the peak, which takes part of a core and delays large processes.

    Raises:
        CommandError: its exit code is not 0.
    """
    marker = uuid.uuid4().hex
    tree = ProcessTree(marker)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output, ExitStack() as stack:
        sampler = stack.enter_context(Sampler(tree)) if memory else None
        began = time.monotonic()
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(env or {}), MARKER: marker},
        )
        try:
            code = process.wait()
            ended = time.monotonic()
        finally:
            _end(process, tree)
    if code != 0:
        tail = log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]
        raise CommandError(f"{' '.join(command[:4])} ended with {code}; the end of {log}:\n{tail}")
    return Measured(
        wall_seconds=ended - began,
        tree_seconds=time.monotonic() - began,
        peak=None if sampler is None else sampler.peak,
    )


def _end(process: subprocess.Popen[bytes], tree: ProcessTree) -> None:
    """Wait for processes that the command left running (Ray's daemons), and kill those that do not end by themselves.

    An interrupted benchmark does not wait.
    """
    if process.poll() is None:
        _kill([process.pid, *tree.pids()])
        process.wait()
    _kill(_left(tree, seconds=_LINGER_SECONDS))
    _left(tree, seconds=_DYING_SECONDS)


def _left(tree: ProcessTree, *, seconds: float) -> list[int]:
    """Return the processes that live after `seconds`; return early when none do."""
    deadline = time.monotonic() + seconds
    while (left := tree.pids()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
