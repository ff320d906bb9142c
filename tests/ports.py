"""Free ports for processes that listen on a given port."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress

_CANDIDATES = range(20_000, 32_000)
"""Above the ports of Ray's workers, and below those that systems assign to processes that ask for any port."""


def free_ports(count: int) -> list[int]:
    """Return free ports of the loopback interface; all are bound at once, so that they differ."""
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
