"""HTTP servers on loopback for tests: S3, a proxy that counts requests and injects faults, and Hugging Face hubs.

Faults strike by counting requests, never by chance.
"""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
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
        """Ignore clients that close their connection: tests do so."""


class _Handler(BaseHTTPRequestHandler):
    """A handler of HTTP/1.1 that reads whole bodies, sends whole answers and keeps connections open."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunk(self) -> bytes:
        chunk = self.rfile.read(int(self.rfile.readline().split(b";")[0], 16))
        self.rfile.readline()
        return chunk

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send an answer; for HEAD `headers` holds the length of the body that GET would send."""
        self.send_response(status)
        headers = dict(headers or {})
        headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hang_up(self) -> None:
        """Close the connection, also in the middle of an answer."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def _serving(server: _Server) -> Iterator[str]:
    """Run the server; gives its address."""
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
    """Run moto's S3, empty; gives its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        s3_backends[DEFAULT_ACCOUNT_ID].reset()  # buckets are kept in this process and would appear in the next server


def put_object(bucket: str, key: str, content: bytes) -> None:
    """Put an object into the S3 of this process without HTTP."""
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, key, content)


@contextmanager
def s3_environment(address: str) -> Iterator[None]:
    """Point this process and its children to the S3 at this address."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
            "NO_PROXY": HOST,
        }.items():
            patch.setenv(key, value)
        fsspec.filesystem("s3").clear_instance_cache()  # instances keep the address that they were created with
        yield
        fsspec.filesystem("s3").clear_instance_cache()


# The proxy

Action = Literal["500", "503", "cut", "lost", "silent"]
"""`cut`: before the server gets a PUT, in the middle of the answer of other requests. `lost`: no answer is sent.
`silent`: the server does not get the request, and the connection stays open until the client closes it."""


@dataclass
class Fault:
    """A fault that the proxy injects into some requests instead of forwarding the server's answer."""

    action: Action
    matches: Callable[[str, str], bool] = lambda method, path: True
    """Selects requests by method and path with query."""
    every: int = 1
    """It strikes the first matching request and then every n-th."""
    limit: int | None = None
    """Strikes at most this many times; None: no limit."""
    after: int = 0
    """This many matching requests pass first."""
    matched: int = 0
    struck: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Whether the fault strikes this request; counts it."""
        if not self.matches(method, path) or (self.limit is not None and self.struck >= self.limit):
            return False
        self.matched += 1
        if self.matched <= self.after or (self.matched - self.after - 1) % self.every:
            return False
        self.struck += 1
        return True


@dataclass
class Proxy:
    """A proxy before a server that counts requests and injects faults."""

    target: str
    address: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request, failed ones included."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    ignores_conditions: bool = False
    """As stores that know no conditional writes."""
    conditional: threading.Lock = field(default_factory=threading.Lock)
    """Held while a conditional write is forwarded: moto looks and writes in two steps, a store in one."""

    def fault(self, method: str, path: str) -> Action | None:
        """Record a request; gives the action of the fault that strikes it, or None."""
        with self.lock:
            self.requests.append((method, path))
            return next((fault.action for fault in self.faults if fault.strikes(method, path)), None)

    def reset(self) -> None:
        """Remove all faults and recorded requests."""
        with self.lock:
            self.faults, self.requests, self.ignores_conditions = [], [], False

    @property
    def methods(self) -> Counter[str]:
        """The number of requests by method."""
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
    """Run a proxy before the server at `target`."""
    proxy = Proxy(target)
    place = urlsplit(target)

    class Handler(_Handler):
        def forward(self) -> None:
            body, action = self.body(), proxy.fault(self.command, self.path)
            if action == "cut" and self.command == "PUT":  # before the server gets the request
                self.hang_up()
            elif action == "silent":
                self.connection.settimeout(60)
                self.rfile.read(1)
                self.close_connection = True
            elif action in (None, "cut", "lost"):
                is_conditional = self.command == "PUT" and {"If-Match", "If-None-Match"} & {*self.headers}
                with proxy.conditional if is_conditional else nullcontext():
                    self._forward_answer(body, action=action)
            else:
                status, text = _ERRORS[action]
                self.answer(status, text.encode(), {"Content-Type": "application/xml"})

        def _forward_answer(self, body: bytes, *, action: Action | None) -> None:
            connection = HTTPConnection(str(place.hostname), place.port, timeout=60)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
                if proxy.ignores_conditions and self.command == "PUT":
                    headers = {name: value for name, value in headers.items() if not name.lower().startswith("if-")}
                connection.request(self.command, self.path, body=body or None, headers=headers)
                answer = connection.getresponse()
                content = answer.read()
                kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
                if self.command == "HEAD":
                    kept["Content-Length"] = answer.getheader("Content-Length") or "0"
                if action is None:
                    self.answer(answer.status, content, kept)
                    return
                if (
                    content and action == "cut"
                ):  # the cut is in the middle of the body; without a body, before the first byte
                    self.answer(
                        answer.status, content[: len(content) // 2], kept | {"Content-Length": str(len(content))}
                    )
                self.hang_up()
            finally:
                connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    with _serving(_Server((HOST, 0), Handler)) as proxy.address:
        yield proxy


# The hub


@dataclass
class Hub:
    """A hub with one private data set repository, readable with the token."""

    repository: str
    """`organization/name`."""
    files: dict[str, bytes]
    token: str
    page: int = 1000
    """Entries per page of a listing."""
    address: str = ""
    signed: str | None = None
    """None: files are served here. Else readers are redirected to an address with this signature, as to a CDN."""
    signed_status: int = 200
    """The status of answers at the signed address."""
    requests: list[tuple[str, str]] = field(default_factory=list)

    def info(self) -> dict[str, Any]:
        """The hub's description of the repository."""
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
        """The entry of a file or folder in a listing."""
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
    """Run the hub."""
    handler = type("Handler", (_HubHandler,), {"hub": hub})
    with _serving(_Server((HOST, 0), handler)) as hub.address:
        yield hub


@dataclass
class ModelHub:
    """A hub with model repositories. A commit's sha is that of its files, so that changed files are a new commit."""

    repositories: dict[str, dict[str, bytes]]
    """By `organization/name`, the files of its branch `main`."""
    tokens: dict[str, str] = field(default_factory=dict)
    """Private repositories, with the token that reads each."""
    gated: set[str] = field(default_factory=set)
    """Repositories whose files nobody may read yet."""
    address: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The files of each commit that was asked for."""

    def commit(self, repository: str) -> str:
        """The commit of `main`."""
        files = self.repositories[repository]
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[sha] = dict(files)
        return sha


class _ModelHubHandler(_Handler):
    hub: ModelHub

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        hub = self.hub
        hub.requests.append((self.command, self.path))
        path = unquote(urlsplit(self.path).path)
        repository = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2])
        token = hub.tokens.get(repository)
        is_readable = token is None or self.headers.get("Authorization") == f"Bearer {token}"
        if repository not in hub.repositories or not is_readable:
            self._refuse(401, "RepoNotFound")
        elif repository in hub.gated and "/resolve/" in path:
            self._refuse(403, "GatedRepo")
        else:
            self._serve(repository, path.partition(repository)[2].strip("/"))

    def _serve(self, repository: str, asked: str) -> None:
        verb, _, rest = asked.partition("/")
        revision, _, name = rest.partition("/")
        main = self.hub.commit(repository)
        commit = main if revision in ("", "main") else revision
        files = self.hub.commits.get(commit)
        if files is None:
            self._refuse(404, "RevisionNotFound")
        elif verb in ("", "revision"):
            self._json({"id": repository, "sha": commit, "private": False, "siblings": []})
        elif verb == "tree":
            self._json(
                [{"type": "file", "oid": _oid(body), "size": len(body), "path": path} for path, body in files.items()]
            )
        elif name in files:
            self.answer(200, files[name], {"X-Repo-Commit": commit, "ETag": f'"{_oid(files[name])}"'})
        else:
            self._refuse(404, "EntryNotFound")

    def _json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self.answer(status, headers={"X-Error-Code": code, "X-Error-Message": code})


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def model_hub_serving(hub: ModelHub) -> Iterator[ModelHub]:
    """Run the hub."""
    handler = type("Handler", (_ModelHubHandler,), {"hub": hub})
    with _serving(_Server((HOST, 0), handler)) as hub.address:
        yield hub


def use_model_hub(address: str, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Point this process to a hub, with its own cache and no token: the library read its variables when imported."""
    constants = "huggingface_hub.constants"
    patch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    patch.setattr(f"{constants}.ENDPOINT", address)
    patch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    patch.setenv("NO_PROXY", HOST)
    patch.delenv("HF_TOKEN", raising=False)


# Files


@contextmanager
def files_serving(files: Mapping[str, bytes], *, sends_parts: bool) -> Iterator[str]:
    """Serve files by name, and parts of them unless the server answers each request with the whole."""

    class Handler(_Handler):
        def do_GET(self) -> None:
            content = files[self.path[1:]]
            asked = self.headers.get("Range")
            if asked is None or not sends_parts:
                self.answer(200, content, {"ETag": "1", "Content-Length": str(len(content))})
                return
            first, last = asked.removeprefix("bytes=").split("-")
            part = content[int(first) : int(last or len(content)) + 1]
            where = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
            self.answer(206, part, {"ETag": "1", "Content-Range": where})

        do_HEAD = do_GET

    with _serving(_Server((HOST, 0), Handler)) as address:
        yield address
