"""Reading ahead, writing behind, and what each of them took.

A worker's own thread only annotates, tokenizes or packs. The next batch is read and decoded on a second thread, what is
done is written on a third; both let go of the interpreter for nearly all of their time. Each holds a fixed number of
batches, so a slow side stops the other instead of filling memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_DEPTH = 2
_THREADS = 16
_ITEMS_OF_A_THREAD = 64
_END: Any = object()


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`function` of each item, in order, for functions that wait for a disk or a network.

    A thread takes some dozen items at a time: handing them over one by one cost more than reading a local footer.
    """
    share = max(1, min(_ITEMS_OF_A_THREAD, -(-len(items) // _THREADS)))
    parts = [items[i : i + share] for i in range(0, len(items), share)]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="in-threads") as threads:
        return [result for part in threads.map(lambda part: list(map(function, part)), parts) for result in part]


def read_ahead(items: Iterable[Item], *, depth: int = 1) -> Generator[Item, None, None]:
    """`items` in their order, of which up to `depth` are got on another thread before they are asked for.

    An exception of `items` is raised where its item would have come. The thread ends with the iteration, also when that
    is closed early: use `contextlib.closing` where an exception may leave the loop.
    """
    source = iter(items)
    waiting: deque[Future[Item]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        try:
            waiting.extend(thread.submit(next, source, _END) for _ in range(depth))
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, source, _END))
                yield item
                del item  # or it would live until the next one is there
        finally:
            for future in waiting:
                future.cancel()


class WriteBehind:
    """Calls made one after the other on another thread; at most `depth` wait.

    As a context manager it waits for all calls at the end of the block.
    """

    def __init__(self, *, depth: int = _DEPTH) -> None:
        self._depth = depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        self._waiting: deque[Future[None]] = deque()

    def __call__(self, call: Callable[[], None]) -> None:
        """Have `call` made; waits while too many are before it. Raises what an earlier one raised."""
        while len(self._waiting) >= self._depth:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(call))

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for future in self._waiting:
                future.cancel()
        self._thread.shutdown(wait=True)
        if kind is None:
            while self._waiting:
                self._waiting.popleft().result()
