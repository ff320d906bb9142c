"""Servers on loopback for tests: S3, a proxy that fails on purpose and counts, and as much of the hub as is read from.

All are real HTTP servers; what fails is decided by counting, never by chance.
"""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

HOST = "127.0.0.1"
KEY = "AKIATESTTESTTESTTEST"
SECRET = "s3cr3t/of+the/store"
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    """What both servers share: whole bodies in, whole answers out, connections that stay open."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunk(self) -> bytes:
        chunk = self.rfile.read(int(self.rfile.readline().split(b";")[0], 16))
        self.rfile.readline()
        return chunk

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send an answer; one to HEAD says in `headers` how long the body would be."""
        self.send_response(status)
        headers = dict(headers or {})
        headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hang_up(self) -> None:
        """Close the connection, in the middle of whatever was being sent."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def _serving(server: _Server) -> Iterator[str]:
    """The server's address while it runs."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# S3


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of an empty S3 (moto's) while it runs."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        s3_backends[DEFAULT_ACCOUNT_ID].reset()  # they live in this process: the next server would have its buckets


def put_object(bucket: str, key: str, content: bytes) -> None:
    """Into the S3 of this process, past all HTTP."""
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, key, content)


@contextmanager
def s3_environment(address: str) -> Iterator[None]:
    """S3 is at this address for this process and those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
            "NO_PROXY": HOST,
        }.items():
            patch.setenv(key, value)
        fsspec.filesystem("s3").clear_instance_cache()  # of one that knows another address
        yield
        fsspec.filesystem("s3").clear_instance_cache()


# The proxy

Action = Literal["500", "503", "cut"]


@dataclass
class Fault:
    """What the proxy does to some requests instead of handing on what the server answers."""

    action: Action
    matches: Callable[[str, str], bool] = lambda method, path: True
    """Of a request's method and path with query."""
    every: int = 1
    """It strikes the first request that matches, and every such one after it."""
    most: int | None = None
    """At most so often; None: always."""
    after: int = 0
    """So many that match are left alone first."""
    seen: int = 0
    struck: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Whether this request is one of them; counts it."""
        if not self.matches(method, path) or (self.most is not None and self.struck >= self.most):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.seen - self.after - 1) % self.every:
            return False
        self.struck += 1
        return True


@dataclass
class Proxy:
    """Stands before a server: counts requests, and lets some of them fail."""

    target: str
    address: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each, those that failed included."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str, path: str) -> Action | None:
        """What is done to this request, which is noted."""
        with self.lock:
            self.requests.append((method, path))
            return next((fault.action for fault in self.faults if fault.strikes(method, path)), None)

    def forget(self) -> None:
        """Count from 0 again, without faults."""
        with self.lock:
            self.faults, self.requests = [], []

    @property
    def methods(self) -> Counter[str]:
        """How many requests there were by method."""
        with self.lock:
            return Counter(method for method, _ in self.requests)


_ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>{message}</Message><RequestId>0</RequestId></Error>"""
_ERRORS = {
    "500": (500, _ERROR.format(code="InternalError", message="We encountered an internal error. Please try again.")),
    "503": (503, _ERROR.format(code="SlowDown", message="Please reduce your request rate.")),
}


@contextmanager
def proxy_before(target: str) -> Iterator[Proxy]:
    """A proxy while it runs."""
    proxy = Proxy(target)
    place = urlsplit(target)

    class Handler(_Handler):
        def hand_on(self) -> None:
            body, action = self.body(), proxy.fault(self.command, self.path)
            if action == "cut" and self.command == "PUT":  # the server never hears of it
                self.hang_up()
            elif action is None or action == "cut":
                self._answer_of_the_server(body, cut=action == "cut")
            else:
                status, text = _ERRORS[action]
                self.answer(status, text.encode(), {"Content-Type": "application/xml"})

        def _answer_of_the_server(self, body: bytes, *, cut: bool) -> None:
            connection = HTTPConnection(str(place.hostname), place.port, timeout=60)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
                connection.request(self.command, self.path, body=body or None, headers=headers)
                answer = connection.getresponse()
                content = answer.read()
                kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
                if self.command == "HEAD":
                    kept["Content-Length"] = answer.getheader("Content-Length") or "0"
                if not cut:
                    self.answer(answer.status, content, kept)
                    return
                if content:  # in the middle of the body; where there is none before the first byte
                    self.answer(
                        answer.status, content[: len(content) // 2], kept | {"Content-Length": str(len(content))}
                    )
                self.hang_up()
            finally:
                connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = hand_on

    with _serving(_Server((HOST, 0), Handler)) as proxy.address:
        yield proxy


# The hub


@dataclass
class Hub:
    """A hub with one repository of data, for who has the token."""

    repository: str
    """`organization/name`."""
    files: dict[str, bytes]
    token: str
    page: int = 1000
    """Entries of a page of a listing."""
    address: str = ""
    signed: str | None = None
    """Where files lie: None: here; else readers are sent to an address with this signature, as to a content network."""
    signed_status: int = 200
    """What is answered there."""
    requests: list[tuple[str, str]] = field(default_factory=list)

    def info(self) -> dict[str, Any]:
        """What the hub says of the repository."""
        return {"id": self.repository, "sha": "0" * 40, "private": True, "siblings": []}

    def entries(self, folder: str, *, recursive: bool) -> list[dict[str, Any]] | None:
        """Files and folders in a folder; None if there is no such folder."""
        prefix = f"{folder}/" if folder else ""
        inside = [path.removeprefix(prefix) for path in sorted(self.files) if path.startswith(prefix)]
        if folder and not inside:
            return None
        folders = {"/".join(parts[:n]) for parts in (p.split("/") for p in inside) for n in range(1, len(parts))}
        names = [*(name for name in sorted(folders)), *inside]
        shown = [name for name in names if recursive or "/" not in name]
        return [self.entry(prefix + name) for name in shown]

    def entry(self, path: str) -> dict[str, Any]:
        """What a listing says of a file or folder."""
        if path not in self.files:
            return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}
        content = self.files[path]
        return {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": path}


class _HubHandler(_Handler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def _route(self) -> None:
        hub, body = self.hub, self.body()
        hub.requests.append((self.command, self.path))
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        api, data = f"/api/datasets/{hub.repository}", f"/datasets/{hub.repository}/resolve/main/"
        if path.startswith("/signed/"):
            self._signed(path.removeprefix("/signed/"), query)
        elif self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._refuse(401, "RepoNotFound")
        elif path in (api, f"{api}/revision/main"):
            self._json(hub.info())
        elif path == f"{api}/tree/main" or path.startswith(f"{api}/tree/main/"):
            self._tree(path.removeprefix(f"{api}/tree/main").strip("/"), query)
        elif path == f"{api}/paths-info/main":
            asked = parse_qs(body.decode())["paths"]
            self._json([hub.entry(name) for name in asked if name in hub.files])
        elif path.startswith(data):
            self._resolve(path.removeprefix(data))
        elif path.startswith((api, f"/datasets/{hub.repository}/")):
            self._refuse(404, "RevisionNotFound")
        else:
            self._refuse(404, "RepoNotFound")

    def _tree(self, folder: str, query: Mapping[str, list[str]]) -> None:
        recursive = query.get("recursive", ["false"])[0].lower() == "true"
        entries = self.hub.entries(folder, recursive=recursive)
        if entries is None:
            self._refuse(404, "EntryNotFound")
            return
        begin = int(query.get("cursor", ["0"])[0])
        end = begin + self.hub.page
        parts = urlsplit(self.path)
        link = f'<{self.hub.address}{parts.path}?recursive={recursive}&cursor={end}>; rel="next"'
        self._json(entries[begin:end], {"Link": link} if end < len(entries) else {})

    def _resolve(self, path: str) -> None:
        if path not in self.hub.files:
            self._refuse(404, "EntryNotFound")
        elif self.hub.signed is not None:
            where = f"{self.hub.address}/signed/{path}?X-Amz-Signature={self.hub.signed}"
            self.answer(302, headers={"Location": where})
        else:
            self._content(self.hub.files[path])

    def _signed(self, path: str, query: Mapping[str, list[str]]) -> None:
        if query.get("X-Amz-Signature") != [self.hub.signed]:
            self._refuse(403, "Forbidden")
        elif self.hub.signed_status != 200:
            self.answer(self.hub.signed_status)
        else:
            self._content(self.hub.files[path])

    def _content(self, content: bytes) -> None:
        asked = self.headers.get("Range")
        if asked is None:
            self.answer(200, content)
            return
        begin, _, end = asked.removeprefix("bytes=").partition("-")
        first, last = int(begin), min(int(end) if end else len(content), len(content) - 1)
        if first > last:
            self.answer(416, headers={"Content-Range": f"bytes */{len(content)}"})
        else:
            part = content[first : last + 1]
            self.answer(206, part, {"Content-Range": f"bytes {first}-{last}/{len(content)}"})

    def _json(self, value: Any, headers: Mapping[str, str] | None = None) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _refuse(self, status: int, code: str) -> None:
        self.answer(status, headers={"X-Error-Code": code, "X-Error-Message": code})


@contextmanager
def hub_serving(hub: Hub) -> Iterator[Hub]:
    """The hub while it runs."""
    handler = type("Handler", (_HubHandler,), {"hub": hub})
    with _serving(_Server((HOST, 0), handler)) as hub.address:
        yield hub
