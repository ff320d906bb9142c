"""Threads around a worker's computation: reading ahead, writing behind, and calls in parallel.

A worker's main thread annotates, tokenizes or packs. A second thread reads and decodes the next batch, a third writes
results; both release the interpreter lock for nearly all of their time. Each queue holds a fixed number of batches, so
a slow side blocks the other instead of filling memory.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_QUEUE_DEPTH = 2
_THREADS = 16
_ITEMS_PER_THREAD = 64
_WAITED_SECONDS = 0.01
_END: Any = object()


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`function(item)` of each item, in order, for functions that wait for a disk or a network.

    A thread takes up to 64 items at a time: submitting them one by one took longer than reading a local footer.
    """
    chunk_size = max(1, min(_ITEMS_PER_THREAD, -(-len(items) // _THREADS)))  # 100 items: 7 each
    chunks = [items[i : i + chunk_size] for i in range(0, len(items), chunk_size)]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="in-threads") as threads:
        results = threads.map(lambda chunk: list(map(function, chunk)), chunks)
        return [result for chunk in results for result in chunk]


def in_threads_if_waiting(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`function(item)` of each item, in order: in this thread, and in others from when the function waits.

    It has waited if more than half of the time so far, and at least 10 ms, was no CPU time. For functions that hold the
    interpreter's lock: footers of 20,000 files in memory took 0.8 s in one thread, and 2.0 s in sixteen that take turns
    on two cores.
    """
    results: list[Result] = []
    begun = time.perf_counter()
    computed = -time.thread_time()
    for item in items:
        seconds = time.perf_counter() - begun
        if seconds - (computed + time.thread_time()) > max(seconds / 2, _WAITED_SECONDS):
            return results + in_threads(function, items[len(results) :])
        results.append(function(item))
    return results


def read_ahead(items: Iterable[Item], *, depth: int = 1) -> Generator[Item, None, None]:
    """`items` in order; another thread fetches up to `depth` of them ahead of the consumer.

    An exception of `items` is raised in the place of its item. The thread ends with the iteration, also when that is
    closed early: use `contextlib.closing` where an exception may leave the loop.
    """
    source = iter(items)
    pending: deque[Future[Item]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        try:
            pending.extend(thread.submit(next, source, _END) for _ in range(depth))
            while (item := pending.popleft().result()) is not _END:
                pending.append(thread.submit(next, source, _END))
                yield item
                del item  # frees its memory while this waits for the next item
        finally:
            for future in pending:
                future.cancel()


class WriteBehind:
    """Runs calls one after the other on another thread; at most `depth` are queued.

    As a context manager it waits for all calls at the end of the block.
    """

    def __init__(self, *, depth: int = _QUEUE_DEPTH) -> None:
        self._depth = depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        self._pending: deque[Future[None]] = deque()

    def __call__(self, call: Callable[[], None]) -> None:
        """Queue `call`; blocks while the queue is full. Raises the exception of an earlier call."""
        while len(self._pending) >= self._depth:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(call))

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for future in self._pending:
                future.cancel()
        self._thread.shutdown(wait=True)
        if kind is None:
            while self._pending:
                self._pending.popleft().result()
