"""Which errors are worth another attempt: those that the libraries really raise."""

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

from colophon.pipeline import retry as transient
from colophon.pipeline.errors import InputError
from colophon.pipeline.retry import is_transient, retried

WHERE = "http://127.0.0.1:1"


def of_s3(code: str, status: int, *, hidden: bool = True) -> BaseException:
    """What botocore raises, and what s3fs makes of it."""
    response: Any = {"Error": {"Code": code, "Message": "said so"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = botocore_errors.ClientError(response, "GetObject")
    made: BaseException = translate_boto_error(error) if hidden else error
    return made


def of_the_web(status: int) -> BaseException:
    info = RequestInfo(URL(WHERE), "GET", CIMultiDictProxy(CIMultiDict()), URL(WHERE))
    return aiohttp.ClientResponseError(info, (), status=status, message="said so")


def of_the_hub(status: int) -> BaseException:
    errors = pytest.importorskip("huggingface_hub.errors")
    http = pytest.importorskip("httpx2")
    response = http.Response(status, request=http.Request("GET", WHERE))
    error: BaseException = errors.HfHubHTTPError("said so", response=response)
    return error


def of_requests(status: int) -> BaseException:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("said so", response=response)


def caused(error: BaseException, cause: BaseException) -> BaseException:
    """As `raise error from cause` does."""
    error.__cause__ = cause
    return error


FOR_NOW = [
    *(of_s3(code, status) for code, status in (("SlowDown", 503), ("InternalError", 500), ("503", 503), ("500", 500))),
    *(of_s3(code, status, hidden=False) for code, status in (("SlowDown", 503), ("InternalError", 200))),
    of_s3("RequestTimeout", 400),
    of_s3("SomethingNew", 502),
    of_s3("OperationAborted", 409),
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
    of_the_web(503),
    of_the_web(429),
    caused(FileNotFoundError(WHERE), of_the_web(500)),  # fsspec's file system of the web does so
    of_the_hub(500),
    of_the_hub(429),
    of_requests(502),
    requests.ConnectionError("reset"),
    requests.exceptions.ChunkedEncodingError("cut"),
    urllib3.exceptions.IncompleteRead(1, 2),
    urllib3.exceptions.ProtocolError("cut"),
    IncompleteRead(b"1", 2),
    RemoteDisconnected("cut"),
    urllib.error.HTTPError(WHERE, 503, "said so", Message(), None),
    ConnectionResetError("cut"),
    TimeoutError("late"),
    asyncio.TimeoutError(),  # another class before Python 3.11
    OSError(errno.EBUSY, "busy"),
    OSError(errno.EHOSTUNREACH, "no route"),
    socket.gaierror(socket.EAI_AGAIN, "ask again"),
]

FOR_GOOD = [
    of_s3("NoSuchKey", 404),
    of_s3("AccessDenied", 403),
    of_s3("403", 403, hidden=False),
    of_s3("ExpiredToken", 400),
    of_s3("InvalidRange", 416),
    of_s3("SomethingNew", 400),
    of_s3("NotImplemented", 501),
    botocore_errors.NoCredentialsError(),
    botocore_errors.ParamValidationError(report="a bucket of no name"),
    botocore_errors.NoRegionError(),
    aiohttp.InvalidURL("nowhere"),
    of_the_web(404),
    of_the_web(401),
    caused(FileNotFoundError(WHERE), of_the_web(404)),
    of_the_hub(404),
    of_the_hub(403),
    of_requests(403),
    urllib3.exceptions.LocationParseError("nowhere"),
    urllib.error.HTTPError(WHERE, 404, "said so", Message(), None),
    FileNotFoundError("gone"),
    PermissionError("not yours"),
    OSError(errno.ENOSPC, "full"),
    OSError(errno.EIO, "a disk"),
    OSError("no number"),
    socket.gaierror(socket.EAI_NONAME, "no such host"),
    ValueError("wrong"),
    MemoryError(),
    caused(InputError("found to be the file"), ConnectionResetError("cut")),
]


def named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:60]


@pytest.mark.parametrize("error", FOR_NOW, ids=named)
def test_what_may_work_a_moment_later(error: BaseException) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", FOR_GOOD, ids=named)
def test_what_will_not(error: BaseException) -> None:
    assert not is_transient(error)


def test_a_hub_that_is_switched_off_is_not_asked_again() -> None:
    errors = pytest.importorskip("huggingface_hub.errors")
    assert not is_transient(errors.OfflineModeIsEnabled("switched off"))


@pytest.mark.parametrize("name", ["ConnectError", "ReadTimeout", "RemoteProtocolError", "ProxyError"])
def test_what_the_hubs_client_raises(name: str) -> None:
    http = pytest.importorskip("httpx2")
    assert is_transient(getattr(http, name)("cut"))
    assert not is_transient(http.UnsupportedProtocol("what is that"))


def test_pauses_grow_and_are_the_same_every_time() -> None:
    assert list(transient.PAUSES_SECONDS) == sorted(set(transient.PAUSES_SECONDS))
    assert min(transient.PAUSES_SECONDS) > 0


def test_as_many_attempts_as_there_are_pauses_and_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transient, "PAUSES_SECONDS", (0.001, 0.002))
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise ConnectionResetError("cut")

    with pytest.raises(ConnectionResetError):
        retried(call)
    assert (len(calls), waited) == (3, [0.001, 0.002])
