"""What the network does: which errors are worth another attempt, and the attempts.

Errors are known by name, so that no client library is imported to tell. A library may hide what happened behind an
error of its own (s3fs makes an OSError of every answer): then its cause decides.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any, TypeVar

from colophon.shards.common.errors import ColophonError

Result = TypeVar("Result")

PAUSES_SECONDS: tuple[float, ...] = (0.5, 1.0, 2.0)
"""Waited before the second, the third, ... attempt. Clients have pauses of their own before, with chance in them."""

# Before Python 3.11 asyncio and concurrent.futures had errors of their own.
_ERRORS = (ConnectionError, TimeoutError, InterruptedError, asyncio.TimeoutError, futures.TimeoutError)
_ERRNOS = {
    getattr(errno, name)
    for name in (
        *("EBUSY", "EREMOTEIO"),  # what s3fs makes of 503 and of 500
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET", "ENETUNREACH", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
}
_OF_A_CONNECTION = {
    *("aiohttp.ClientConnectionError", "aiohttp.ClientPayloadError"),
    *("botocore.ConnectionError", "botocore.HTTPClientError", "botocore.IncompleteReadError"),
    "botocore.ResponseParserError",  # an overloaded store answers with half an XML document
    *("gcsfs.ChecksumError", "google.TransportError", "http.IncompleteRead"),
    *(
        f"{library}.{error}"
        for library in ("httpcore", "httpcore2", "httpx", "httpx2")
        for error in ("NetworkError", "ProxyError", "RemoteProtocolError", "TimeoutException")
    ),
    *("requests.ConnectionError", "requests.Timeout", "requests.ChunkedEncodingError"),
    "s3fs.FileExpired",  # replaced while it was read: opened again it is whole, and whether it may be is seen then
    *("urllib3.MaxRetryError", "urllib3.ProtocolError", "urllib3.ProxyError", "urllib3.TimeoutError"),
    "urllib3.IncompleteRead",
}
_NOT_FOR_NOW = {"huggingface_hub.OfflineModeIsEnabled"}  # a ConnectionError that is asked for
_STATUSES = {408, 425, 429}
_FOR_GOOD = {501, 505}
_CODES = {
    *("InternalError", "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable", "SlowDown"),
    *("OperationAborted", "PriorRequestNotComplete", "RequestLimitExceeded", "BandwidthLimitExceeded"),
    *("Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException"),
}


def is_transient(error: BaseException) -> bool:
    """Whether the same call may work a moment later: the connection failed, or the server said that it cannot now."""
    verdicts = (_verdict(found) for found in _with_causes(error))
    return next((verdict for verdict in verdicts if verdict is not None), False)


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _verdict(error: BaseException) -> bool | None:
    """What this error alone says; None: nothing, its cause may."""
    names = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if isinstance(error, ColophonError) or names & _NOT_FOR_NOW:
        return False
    if names & _OF_A_CONNECTION or isinstance(error, _ERRORS):
        return True
    if isinstance(error, socket.gaierror):  # its numbers are not those of other errors
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    return _answer_is_transient(error)


def _answer_is_transient(error: BaseException) -> bool | None:
    """What the answer of a server says that the error holds; None if it holds none."""
    response: Any = getattr(error, "response", None)
    code, status = None, None
    if isinstance(response, Mapping):
        code = response.get("Error", {}).get("Code")
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        for holder, name in ((response, "status_code"), (error, "status"), (error, "code")):
            found = getattr(holder, name, None) if status is None else None
            status = found if isinstance(found, int) and 400 <= found < 600 else status
    if status is None and code is None:
        return None
    return code in _CODES or status in _STATUSES or (status is not None and status >= 500 and status not in _FOR_GOOD)


def retried(call: Callable[[], Result]) -> Result:
    """`call()`, tried again after each of `PAUSES_SECONDS` while its errors are transient.

    Raises:
        Exception: what the last attempt raised.
    """
    for pause in PAUSES_SECONDS:
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(pause)
    return call()
