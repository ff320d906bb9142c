"""Wall time by step of a stage's work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

Item = TypeVar("Item")
_END: Any = object()
Step = Literal["load", "read", "annotate", "tokenize", "pack", "write"]

STEPS: tuple[Step, ...] = ("load", "read", "annotate", "tokenize", "pack", "write")
"""The parts of a worker's time: loading models, reading and decoding, the work of each stage, writing and commit."""


class Clock:
    """Seconds by step. Steps that overlap, each on its own thread, are counted in full."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = dict.fromkeys(STEPS, 0.0)

    @property
    def seconds(self) -> Mapping[str, float]:
        """Wall time by step so far, in seconds."""
        return dict(self._seconds)

    @contextmanager
    def measure(self, step: Step) -> Iterator[None]:
        """Add the time of the block to a step."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[step] += time.perf_counter() - begun

    def call(self, step: Step, function: Callable[[Item], object], argument: Item) -> None:
        """Call `function` and add its time to a step."""
        with self.measure(step):
            function(argument)

    def each(self, step: Step, items: Iterable[Item]) -> Iterator[Item]:
        """Yield `items` and add the time that each takes to arrive to a step."""
        source = iter(items)
        while True:
            with self.measure(step):
                item = next(source, _END)
            if item is _END:
                return
            yield item
