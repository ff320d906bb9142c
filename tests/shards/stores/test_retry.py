"""Which errors of the client libraries are transient, and how often a call is repeated."""

from __future__ import annotations

import asyncio
import errno
import socket
import urllib.error
from email.message import Message
from http.client import IncompleteRead, RemoteDisconnected
from typing import Any

import aiohttp
import pytest
import requests
import urllib3
from aiobotocore.response import AioReadTimeoutError
from aiohttp.client_reqrep import RequestInfo
from botocore import exceptions as botocore_errors
from botocore.parsers import ResponseParserError
from fsspec.exceptions import FSTimeoutError
from multidict import CIMultiDict, CIMultiDictProxy
from s3fs.errors import translate_boto_error
from s3fs.utils import FileExpired
from yarl import URL

from colophon.pipeline.errors import InputError
from colophon.shards.stores import retry
from colophon.shards.stores.retry import is_transient, retried

WHERE = "http://127.0.0.1:1"


def s3_error(code: str, status: int, *, wrapped: bool = True) -> BaseException:
    """An error of botocore, wrapped as s3fs wraps it."""
    response: Any = {"Error": {"Code": code, "Message": "message"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = botocore_errors.ClientError(response, "GetObject")
    wrapped_error: BaseException = translate_boto_error(error)
    return wrapped_error if wrapped else error


def http_error(status: int) -> BaseException:
    info = RequestInfo(URL(WHERE), "GET", CIMultiDictProxy(CIMultiDict()), URL(WHERE))
    return aiohttp.ClientResponseError(info, (), status=status, message="message")


def hub_error(status: int) -> BaseException:
    errors = pytest.importorskip("huggingface_hub.errors")
    http = pytest.importorskip("httpx2")
    response = http.Response(status, request=http.Request("GET", WHERE))
    error: BaseException = errors.HfHubHTTPError("message", response=response)
    return error


def requests_error(status: int) -> BaseException:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("message", response=response)


def with_cause(error: BaseException, cause: BaseException) -> BaseException:
    """The error that `raise error from cause` raises."""
    error.__cause__ = cause
    return error


TRANSIENT = [
    *(
        s3_error(code, status)
        for code, status in (("SlowDown", 503), ("InternalError", 500), ("503", 503), ("500", 500))
    ),
    *(s3_error(code, status, wrapped=False) for code, status in (("SlowDown", 503), ("InternalError", 200))),
    s3_error("RequestTimeout", 400),
    s3_error("SomethingNew", 502),
    s3_error("OperationAborted", 409),
    botocore_errors.EndpointConnectionError(endpoint_url=WHERE),
    botocore_errors.ConnectTimeoutError(endpoint_url=WHERE),
    botocore_errors.ConnectionClosedError(endpoint_url=WHERE),
    botocore_errors.ReadTimeoutError(endpoint_url=WHERE),
    botocore_errors.ResponseStreamingError(error="cut"),
    botocore_errors.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ResponseParserError("half an answer"),
    AioReadTimeoutError(endpoint_url=WHERE),
    FileExpired("bucket/key", "tag"),
    FSTimeoutError(),
    aiohttp.ClientPayloadError("not all of it"),
    aiohttp.ServerDisconnectedError(),
    http_error(503),
    http_error(429),
    with_cause(FileNotFoundError(WHERE), http_error(500)),  # as fsspec's HTTP file system raises it
    hub_error(500),
    hub_error(429),
    requests_error(502),
    requests.ConnectionError("reset"),
    requests.exceptions.ChunkedEncodingError("cut"),
    urllib3.exceptions.IncompleteRead(1, 2),
    urllib3.exceptions.ProtocolError("cut"),
    IncompleteRead(b"1", 2),
    RemoteDisconnected("cut"),
    urllib.error.HTTPError(WHERE, 503, "message", Message(), None),
    ConnectionResetError("cut"),
    TimeoutError("late"),
    asyncio.TimeoutError(),  # a separate class before Python 3.11
    OSError(errno.EBUSY, "busy"),
    OSError(errno.EHOSTUNREACH, "no route"),
    socket.gaierror(socket.EAI_AGAIN, "ask again"),
]

PERMANENT = [
    s3_error("NoSuchKey", 404),
    s3_error("AccessDenied", 403),
    s3_error("403", 403, wrapped=False),
    s3_error("ExpiredToken", 400),
    s3_error("InvalidRange", 416),
    s3_error("SomethingNew", 400),
    s3_error("NotImplemented", 501),
    botocore_errors.NoCredentialsError(),
    botocore_errors.ParamValidationError(report="a bucket of no name"),
    botocore_errors.NoRegionError(),
    aiohttp.InvalidURL("nowhere"),
    http_error(404),
    http_error(401),
    with_cause(FileNotFoundError(WHERE), http_error(404)),
    hub_error(404),
    hub_error(403),
    requests_error(403),
    urllib3.exceptions.LocationParseError("nowhere"),
    urllib.error.HTTPError(WHERE, 404, "message", Message(), None),
    FileNotFoundError("gone"),
    PermissionError("not yours"),
    OSError(errno.ENOSPC, "full"),
    OSError(errno.EIO, "a disk"),
    OSError("no number"),
    socket.gaierror(socket.EAI_NONAME, "no such host"),
    ValueError("wrong"),
    MemoryError(),
    with_cause(InputError("a damaged file"), ConnectionResetError("cut")),
]


def named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:60]


@pytest.mark.parametrize("error", TRANSIENT, ids=named)
def test_errors_that_may_pass_are_transient(error: BaseException) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", PERMANENT, ids=named)
def test_errors_that_stay_are_permanent(error: BaseException) -> None:
    assert not is_transient(error)


def test_an_offline_hub_is_not_retried() -> None:
    errors = pytest.importorskip("huggingface_hub.errors")
    assert not is_transient(errors.OfflineModeIsEnabled("offline"))


@pytest.mark.parametrize("name", ["ConnectError", "ReadTimeout", "RemoteProtocolError", "ProxyError"])
def test_connection_errors_of_the_hubs_client_are_transient(name: str) -> None:
    http = pytest.importorskip("httpx2")
    assert is_transient(getattr(http, name)("cut"))
    assert not is_transient(http.UnsupportedProtocol("what is that"))


def test_pauses_grow() -> None:
    assert list(retry.PAUSES_SECONDS) == sorted(set(retry.PAUSES_SECONDS))
    assert min(retry.PAUSES_SECONDS) > 0


def test_there_is_one_attempt_more_than_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PAUSES_SECONDS", (0.001, 0.002))
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise ConnectionResetError("cut")

    with pytest.raises(ConnectionResetError):
        retried(call)
    assert (len(calls), waited) == (3, [0.001, 0.002])


def test_a_transient_error_is_followed_by_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    answers = iter([TimeoutError(), ConnectionError(), "answer"])

    def call() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retried(call) == "answer"
    assert waited == [0.5, 1.0]


@pytest.mark.parametrize(("error", "calls"), [(TimeoutError("slow"), 4), (ValueError("wrong"), 1)])
def test_attempts_are_bounded_and_permanent_errors_are_raised_at_once(
    monkeypatch: pytest.MonkeyPatch, error: Exception, calls: int
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    attempts: list[int] = []

    def call() -> None:
        attempts.append(1)
        raise error

    with pytest.raises(type(error)):
        retried(call)
    assert len(attempts) == calls
