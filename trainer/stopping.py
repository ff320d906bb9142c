"""Ending a run cleanly when the system or a person asks."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """Turns SIGTERM, SIGUSR1 and SIGINT into `requested`; a SIGINT after that interrupts at once.

    Python runs signal handlers in the main thread only; in another one this does nothing.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        """The name of the signal that came first."""
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
        self.requested = self.requested or signal.Signals(number).name
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
