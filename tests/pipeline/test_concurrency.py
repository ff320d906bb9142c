"""Calls in threads: in order, and only where they wait."""

from __future__ import annotations

import threading
from itertools import count
from types import SimpleNamespace

import pytest

from colophon.pipeline import concurrency
from colophon.pipeline.concurrency import in_threads_if_waiting


def named(item: int) -> tuple[int, bool]:
    """The item, and whether this is the main thread."""
    return item, threading.current_thread() is threading.main_thread()


@pytest.mark.parametrize(("cpu_seconds", "in_main"), [(0, 0), (1, 100)], ids=["it waits", "it computes"])
def test_only_what_waits_is_done_in_threads(monkeypatch: pytest.MonkeyPatch, cpu_seconds: int, in_main: int) -> None:
    wall, cpu = count(), count(step=cpu_seconds)
    clock = SimpleNamespace(perf_counter=lambda: next(wall), thread_time=lambda: next(cpu))
    monkeypatch.setattr(concurrency, "time", clock)
    results = in_threads_if_waiting(named, range(100))
    assert [item for item, _ in results] == [*range(100)]
    assert sum(is_main for _, is_main in results) == in_main


def test_an_error_of_a_call_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads_if_waiting(lambda item: 1 // item, [1, 0])
