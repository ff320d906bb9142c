"""A clean end of a run at a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any


class StopRequest:
    """Records SIGTERM, SIGUSR1 or SIGINT in `requested`; a SIGINT after that interrupts at once.

    Python runs signal handlers in the main thread only; in any other thread this does nothing.
    """

    def __init__(self, report: Callable[[str], None] = lambda line: None) -> None:
        """`report` gets a line as soon as a signal arrives: the step at hand may take long."""
        self._report = report
        self.requested = 0
        """Number of the first signal; 0: none so far."""
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
            self._previous = {number: signal.signal(number, self._request) for number in numbers}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, name = number, signal.Signals(number).name
            again = "; a second one stops at once, without a checkpoint" if number == signal.SIGINT else ""
            with suppress(RuntimeError):  # the signal arrived while a line was printed
                self._report(f"{name}: stopping after the current step, with a checkpoint{again}")
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
