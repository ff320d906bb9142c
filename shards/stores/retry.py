"""Retries: which errors of disks and networks are transient, and the attempts.

Errors are recognized by name, so that no client library has to be imported. A library may wrap an error in one of its
own (s3fs turns every answer into an OSError); then the cause decides.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, TypeVar

from colophon.shards.common.errors import ColophonError, one_line

Result = TypeVar("Result")

PAUSES_SECONDS: tuple[float, ...] = (0.5, 1.0, 2.0)
"""Pauses before the second, third, ... attempt. Client libraries retry before that, with random pauses of their own."""

# Before Python 3.11 the timeouts of asyncio and concurrent.futures were separate classes.
_TRANSIENT_TYPES = (ConnectionError, TimeoutError, InterruptedError, asyncio.TimeoutError, futures.TimeoutError)
_TRANSIENT_ERRNOS = {
    getattr(errno, name)
    for name in (
        *("EBUSY", "EREMOTEIO"),  # s3fs raises these for 503 and 500
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET", "ENETUNREACH", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
}
_CONNECTION_ERRORS = {
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
    "s3fs.FileExpired",  # the file was replaced while it was read; see `inputs/readers.py` for the new one
    *("urllib3.MaxRetryError", "urllib3.ProtocolError", "urllib3.ProxyError", "urllib3.TimeoutError"),
    "urllib3.IncompleteRead",
}
_PERMANENT_ERRORS = {"huggingface_hub.OfflineModeIsEnabled"}  # a ConnectionError that the user asked for
_TRANSIENT_STATUSES = {408, 425, 429}
_PERMANENT_STATUSES = {501, 505}
_TRANSIENT_CODES = {
    *("InternalError", "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable", "SlowDown"),
    "ConditionalRequestConflict",  # two conditional writes of one object at once
    *("OperationAborted", "PriorRequestNotComplete", "RequestLimitExceeded", "BandwidthLimitExceeded"),
    *("Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException"),
}


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a moment later: the connection failed, or the server is overloaded."""
    verdicts = (_verdict(link) for link in _cause_chain(error))
    return next((verdict for verdict in verdicts if verdict is not None), False)


def _cause_chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _verdict(error: BaseException) -> bool | None:
    """Whether this error, apart from its cause, is transient; None: its cause decides."""
    names = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if isinstance(error, ColophonError) or names & _PERMANENT_ERRORS:
        return False
    if names & _CONNECTION_ERRORS or isinstance(error, _TRANSIENT_TYPES):
        return True
    if isinstance(error, socket.gaierror):  # its errno are numbers of getaddrinfo, not of the system
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS:
        return True
    return _response_verdict(error)


def _response_verdict(error: BaseException) -> bool | None:
    """Whether the server's response in an error is transient; None without a response."""
    response: Any = getattr(error, "response", None)
    code, status = None, None
    if isinstance(response, Mapping):
        code = response.get("Error", {}).get("Code")
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        for holder, name in ((response, "status_code"), (error, "status"), (error, "code")):
            value = getattr(holder, name, None) if status is None else None
            status = value if isinstance(value, int) and 400 <= value < 600 else status
    if status is None and code is None:
        return None
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUSES:
        return True
    return status is not None and status >= 500 and status not in _PERMANENT_STATUSES


def retried(call: Callable[[], Result], *, pauses: Sequence[float] | None = None) -> Result:
    """The result of `call()`, repeated after each of `pauses`, by default `PAUSES_SECONDS`, while errors are transient.

    Raises:
        Exception: the error of the last attempt.
    """
    for pause in PAUSES_SECONDS if pauses is None else pauses:
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(pause)
    return call()


def retried_for(what: str, call: Callable[[], Result]) -> Result:
    """As `retried`; the error of the last attempt names `what`.

    Raises:
        ColophonError: that error is transient.
        Exception: an error that is not.
    """
    try:
        return retried(call)
    except Exception as error:
        if not is_transient(error):
            raise
        raise ColophonError(f"{what}: {one_line(error)} (retries exhausted)") from error
