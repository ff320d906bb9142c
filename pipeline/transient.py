"""What the network does: which errors are worth another attempt, and the attempts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_ERRORS = (ConnectionError, TimeoutError, InterruptedError)
_CLIENTS = ("aiohttp", "aiobotocore", "botocore", "gcsfs", "httpcore", "httpx", "requests", "urllib3")
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.5


def is_transient(error: BaseException) -> bool:
    """Whether the same call may work a moment later: the error is of a connection, or of a library that holds one."""
    return isinstance(error, _ERRORS) or type(error).__module__.split(".")[0] in _CLIENTS


def retried(call: Callable[[], Result]) -> Result:
    """`call()`, tried again with growing pauses (0.5, 1 and 2 seconds) while its errors are transient.

    Raises:
        Exception: what the last attempt raised.
    """
    for number in range(_ATTEMPTS - 1):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(_FIRST_PAUSE_SECONDS * 2**number)
    return call()
