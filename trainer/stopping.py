"""Ending a run cleanly when the system or a person asks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any


class StopRequest:
    """Turns SIGTERM, SIGUSR1 and SIGINT into `requested`; a SIGINT after that interrupts at once.

    Python runs signal handlers in the main thread only; in another one this does nothing.
    """

    def __init__(self, report: Callable[[str], None] = lambda line: None) -> None:
        """`report` is told at once, for a step may be long."""
        self._report = report
        self.requested = 0
        """The number of the signal that came first; 0: none came."""
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
            again = "; once more stops at once, without" if number == signal.SIGINT else ""
            with suppress(RuntimeError):  # the signal came while a line was printed
                self._report(f"{name}: stopping after the step at hand, with a checkpoint{again}")
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
