"""Ports for processes that must be told where to listen."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress

_CANDIDATES = range(20_000, 32_000)
"""Above Ray's workers, and below what systems give to whoever asks for any port: nobody gets one of these before it is
used, unless they want it."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on; held together, so that they differ."""
    found: list[int] = []
    with ExitStack() as held:
        for port in random.SystemRandom().sample(_CANDIDATES, len(_CANDIDATES)):
            if len(found) == count:
                break
            probe = held.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
    assert len(found) == count
    return found
