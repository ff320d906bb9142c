"""Peak memory of a process tree, each shared page counted once: the sum of proportional set sizes (Linux only).

A process belongs to the tree if its environment holds the run's marker, or if it descends from one that does: Ray's
daemons leave the tree by reparenting but keep the environment, and processes that overwrite their environment (those
that set their title) are still children of marked ones.

Cost: reading `smaps_rollup` walks a process's page tables, tens of milliseconds per gigabyte, and may delay it. The
sampler therefore uses at most a twentieth of a core: a contestant with more memory is not delayed more than another.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

MARKER = "COLOPHON_BENCH_RUN"
INTERVAL_SECONDS = 0.25
_PART_OF_A_CORE = 0.05
_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class ProcessMemory:
    """One process at the moment of the peak."""

    command: str
    pss_bytes: int


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The largest sum of all samples."""

    pss_bytes: int
    processes: tuple[ProcessMemory, ...]
    """Largest first."""
    num_samples: int


class ProcessTree:
    """The living processes of one run."""

    def __init__(self, marker: str) -> None:
        """`marker`: the value of the environment variable `MARKER` in the run's processes."""
        self._needle = f"{MARKER}={marker}".encode()
        self._known: dict[tuple[int, int], bool] = {}  # (pid, start time) → belongs

    def pids(self) -> list[int]:
        """Return the processes of the run, without zombies."""
        alive = {pid: stat for pid in _numbers() if (stat := _stat(pid)) is not None}
        belongs = {pid for pid, stat in alive.items() if self._is_marked(pid, stat.started)}
        children = [(stat.parent, pid) for pid, stat in alive.items()]
        while more := {pid for parent, pid in children if parent in belongs} - belongs:
            belongs |= more
        self._known = {(pid, stat.started): pid in belongs for pid, stat in alive.items()}
        return sorted(pid for pid in belongs if not alive[pid].zombie)

    def _is_marked(self, pid: int, started: int) -> bool:
        known = self._known.get((pid, started))
        if known is not None:
            return known
        try:
            return self._needle in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:  # a different user's process, or an ended one
            return False


class Sampler:
    """Samples a process tree in a thread, from entering to leaving the context; `peak` is None where /proc is none.

    `interval` is the shortest time between two samples, in seconds.
    """

    def __init__(self, tree: ProcessTree, *, interval: float = INTERVAL_SECONDS) -> None:
        self.peak: Peak | None = None
        self._tree = tree
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        samples = 0
        last = False  # one more sample after the context has ended
        while True:
            began = time.thread_time()
            found = [
                ProcessMemory(command=_command(pid), pss_bytes=pss) for pid in self._tree.pids() if (pss := pss_of(pid))
            ]
            samples += 1
            self._keep(found, samples)
            if last:
                return
            last = self._stop.wait(max(self._interval, (time.thread_time() - began) / _PART_OF_A_CORE))

    def _keep(self, found: list[ProcessMemory], samples: int) -> None:
        total = sum(process.pss_bytes for process in found)
        before = self.peak
        if total and (before is None or total > before.pss_bytes):
            largest = tuple(sorted(found, key=lambda process: -process.pss_bytes))
            self.peak = Peak(pss_bytes=total, processes=largest, num_samples=samples)
        elif before is not None:
            self.peak = Peak(pss_bytes=before.pss_bytes, processes=before.processes, num_samples=samples)


def pss_of(pid: int) -> int:
    """Return the proportional set size in bytes; 0 for a process that has ended or belongs to a different user."""
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


@dataclass(frozen=True)
class _Stat:
    parent: int
    started: int
    zombie: bool


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name is in parentheses and may contain any character: fields are counted from the last parenthesis.
    fields = text.rpartition(")")[2].split()
    return _Stat(parent=int(fields[1]), started=int(fields[19]), zombie=fields[0] in "ZX")


def _numbers() -> list[int]:
    try:
        return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return b" ".join(word.rpartition(b"/")[2] for word in words[:4]).decode(errors="replace").strip()[:80]
