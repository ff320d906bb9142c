"""One request to an OpenAI-compatible endpoint: sent, read within a time and a size, and judged."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import orjson

from colophon.annotators.llm.replies import BUSY, CONTENT_FILTER, UNREACHABLE, Reply, Sent, Usage
from colophon.annotators.remote import ServiceError
from colophon.shards.common.errors import short_reason

_MOST_REPLY_BYTES = 1 << 20
_LONGEST_MESSAGE = 200
_BUSY_STATUSES = (408, 425, 429)
_OF_DOCUMENT = (400, 413, 422)
"""Statuses that a document can be the reason of: it is too long, or the server cannot tokenize it."""
_TOO_LONG = ("context length", "context_length", "context window", "too long", "maximum context", "too many tokens")
_LONGEST_RETRY_AFTER_SECONDS = 600.0


class ChatClient:
    """Sends requests to `ENDPOINT/chat/completions`; any number of threads can use it. Redirects are not followed."""

    def __init__(self, endpoint: str, *, key: str | None, timeout_seconds: float, connections: int) -> None:
        """Connect to nothing yet.

        Args:
            endpoint: the address without `/chat/completions`.
            key: sent as `Authorization: Bearer`; it is in nothing that this class returns or raises.
            timeout_seconds: for a connection, for each wait for data, and for the whole reply.
            connections: the most at once.
        """
        self._endpoint, self._key, self._timeout = endpoint, key, timeout_seconds
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx2.Client(headers=headers, timeout=timeout_seconds, limits=limits)

    def close(self) -> None:
        """Close all connections; requests of other threads fail."""
        self._http.close()

    def send(self, request: bytes) -> Sent:
        """Send a request once.

        Raises:
            ServiceError: the endpoint refuses every request: an unknown key, model or path.
        """
        try:
            status, headers, body = self._received(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            detail = f"no connection: {self._masked(short_reason(error))}"
            return Sent(status=UNREACHABLE, detail=detail, is_transient=True, may_be_billed=False)
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise ServiceError(f"not an address that can be connected to: {short_reason(error)}") from None
        except httpx2.TimeoutException:
            return Sent(status="timeout", detail=f"no reply within {self._timeout:g} s", is_transient=True)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            return Sent(status="broken", detail=self._masked(short_reason(error)), is_transient=True)
        return self._judged(status, headers, body)

    def _received(self, request: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """The status, the headers and the body; a reply that takes longer than the timeout as a whole is an error."""
        deadline, body = time.monotonic() + self._timeout, bytearray()
        with self._http.stream("POST", f"{self._endpoint}/chat/completions", content=request) as response:
            for chunk in response.iter_raw():
                body += chunk
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout("")
                if len(body) > _MOST_REPLY_BYTES:
                    raise httpx2.StreamError(f"a reply of more than {_MOST_REPLY_BYTES >> 20} MiB")
            return response.status_code, response.headers, bytes(body)

    def _judged(self, status: int, headers: Mapping[str, str], body: bytes) -> Sent:
        if status == 200:
            return _read(self._masked(body.decode("utf-8", "replace")))
        message, code = _error_of(body)
        detail = f"HTTP {status}" + (f": {self._masked(message)}" if message else "")
        is_quota = code == "insufficient_quota"
        if (status in _BUSY_STATUSES or status >= 500) and not is_quota:
            name = BUSY if status in _BUSY_STATUSES else "server_error"
            seconds = _retry_after(headers.get("retry-after"))
            return Sent(status=name, detail=detail, is_transient=True, may_be_billed=False, retry_after=seconds)
        if status in _OF_DOCUMENT:
            name = "too_long" if status == 413 or any(word in message.lower() for word in _TOO_LONG) else "rejected"
            return Sent(status=name, detail=detail, may_be_billed=False)
        if status in (401, 403):
            detail = f"HTTP {status}: {'the key is refused' if self._key else 'it asks for a key: set key_variable'}"
        raise ServiceError(detail)

    def _masked(self, text: str) -> str:
        """The text without the key, which a server may repeat."""
        return text.replace(self._key, "***") if self._key else text


def _read(body: str) -> Sent:
    """The reply in the body of a response 200; one that has none, such as half a body, is a transient failure."""
    try:
        value = orjson.loads(body)
        choice = value["choices"][0]
        message = choice["message"]
        content, finish = message.get("content") or "", choice.get("finish_reason") or "stop"
        if message.get("refusal"):
            finish = CONTENT_FILTER
        reply = Reply(_text(content), _text(finish))
    except (ValueError, LookupError, TypeError, AttributeError):
        return Sent(status="invalid_reply", detail="a reply that is not a chat completion", is_transient=True)
    return Sent(reply=reply, usage=_usage(value.get("usage")))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _usage(value: Any) -> Usage | None:
    match value:
        case {"prompt_tokens": int(prompt), "completion_tokens": int(output)} if min(prompt, output) >= 0:
            return Usage(prompt, output)
    return None


def _error_of(body: bytes) -> tuple[str, str]:
    """The message and the code of an error as OpenAI's and vLLM's servers write it; empty if there is none."""
    try:
        value = orjson.loads(body)
        error = value.get("error", value)
        message, code = error.get("message"), error.get("code")
    except (ValueError, AttributeError):
        return "", ""
    return (" ".join(message.split())[:_LONGEST_MESSAGE] if isinstance(message, str) else ""), str(code)


def _retry_after(value: str | None) -> float | None:
    """The seconds of a `Retry-After` header, which has a number or a date; None without a usable one."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds()
        except (ValueError, TypeError):  # no date, or one without a zone
            return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else None
