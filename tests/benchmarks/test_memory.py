"""Memory of a process tree: its processes, and shared pages, which count once."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.memory import MARKER, ProcessTree, Sampler, pss_of

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="proportional memory is Linux's")

_MEGABYTE = 1 << 20
_HOLD = """
import sys
held = bytearray(int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""
_MAP = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
total = sum(mapped[::4096])
print("ready", flush=True)
sys.stdin.read()
"""
_GRANDCHILD = """
import os, subprocess, sys
env = {k: v for k, v in os.environ.items() if not k.startswith("COLOPHON_BENCH")}
child = subprocess.Popen([sys.executable, "-c", "import sys; print('ready', flush=True); sys.stdin.read()"], env=env)
print(child.pid, flush=True)
child.wait()
"""


@contextmanager
def process(code: str, *arguments: str, marker: str | None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A Python process that has printed its first line, and that line; it ends with the context."""
    env = {**os.environ, **({} if marker is None else {MARKER: marker})}
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        yield child, child.stdout.readline().strip()
        child.stdin.close()


def test_a_process_belongs_by_its_marker_alone() -> None:
    marker = uuid.uuid4().hex
    with (
        process(_HOLD, "1", marker=marker) as (ours, _),
        process(_HOLD, "1", marker=marker + "0") as (other, _),
        process(_HOLD, "1", marker=None) as (none, _),
    ):
        tree = ProcessTree(marker)
        assert tree.pids() == [ours.pid]
        assert ProcessTree(marker + "0").pids() == [other.pid]
        assert none.pid not in tree.pids()
    assert tree.pids() == []


def test_children_that_overwrote_their_environment_belong() -> None:
    marker = uuid.uuid4().hex
    with process(_GRANDCHILD, marker=marker) as (child, line):
        assert ProcessTree(marker).pids() == sorted([child.pid, int(line)] if line.isdigit() else [])


def test_the_peak_is_the_memory_of_the_processes() -> None:
    marker = uuid.uuid4().hex
    sampler = Sampler(ProcessTree(marker), interval=0.01)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(process(_HOLD, str(100 * _MEGABYTE), marker=marker))
        with sampler:  # its last sample is taken when this block ends
            pass
    assert sampler.peak is not None
    assert 200 * _MEGABYTE < sampler.peak.pss_bytes < 300 * _MEGABYTE
    assert [process.pss_bytes > 100 * _MEGABYTE for process in sampler.peak.processes] == [True, True]


def test_pages_that_processes_share_count_once(tmp_path: Path) -> None:
    file = tmp_path / "pages"
    file.write_bytes(os.urandom(64 * _MEGABYTE))
    marker = uuid.uuid4().hex
    with ExitStack() as stack:
        children = [stack.enter_context(process(_MAP, str(file), marker=marker))[0] for _ in range(3)]
        total = sum(pss_of(child.pid) for child in children)
    assert 64 * _MEGABYTE < total < 2 * 64 * _MEGABYTE


def test_an_ended_process_has_no_memory() -> None:
    with process(_HOLD, "1", marker=None) as (child, _):
        pass
    assert pss_of(child.pid) == 0
