"""The page's server: loopback alone, nothing but the page and its calls, and no request reaches a file.

Other users and programs of the machine do not know the random token that begins every path. Pages of other sites do not
either; beside that, a request must name this machine as its host (DNS rebinding), and come from the page itself.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping
from functools import cached_property
from hmac import compare_digest
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit

from colophon.pipeline.errors import UsageError, one_line
from colophon.pipeline.reports.page.charts import ROLE_COLOURS
from colophon.pipeline.reports.view.calls import Calls
from colophon.shards.schema import ROLE_NAMES

LOOPBACK = "127.0.0.1"
_HOSTS = {LOOPBACK, "localhost", "::1"}
_LONGEST_CALL = 1 << 18
_SECONDS_OF_A_READ = 30
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class ViewServer(ThreadingHTTPServer):
    """Serves the page of a run until it is shut down.

    Raises:
        UsageError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, calls: Calls, *, port: int = 0) -> None:
        """Bind the port of 127.0.0.1; 0 is any free one."""
        self.calls, self.token = calls, secrets.token_urlsafe(16)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            message = f"view: port {port} of {LOOPBACK} cannot be used: {one_line(error)}. Choose another with --port"
            raise UsageError(message) from None

    def server_bind(self) -> None:
        """Bind without asking for the machine's name, which may wait for a network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    @cached_property
    def pages(self) -> Mapping[str, tuple[str, bytes]]:
        """The content type and the content of each file of the page, by its path after the token."""
        roles = "".join(f".role-{name} {{ --role: {c}; }}\n" for name, c in zip(ROLE_NAMES, ROLE_COLOURS, strict=True))
        style = _resource("page", "page.css") + roles + _resource("view", "view.css")
        return {
            "": ("text/html", _resource("view", "view.html").encode()),
            "view.css": ("text/css", style.encode()),
            "view.js": ("text/javascript", _resource("view", "view.js").encode()),
        }

    def server_close(self) -> None:
        """Stop listening, and wait for the calls that run."""
        super().server_close()
        self.calls.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of a defect; a browser that closes its connection is none."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; the connection is closed after it."""

    server: ViewServer
    timeout = _SECONDS_OF_A_READ

    def do_GET(self) -> None:
        """Answer with a file of the page."""
        path = self._path()
        if path is None:
            return
        if path not in self.server.pages:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        kind, content = self.server.pages[path]
        self._begin(f"{kind}; charset=utf-8", length=len(content))
        self.wfile.write(content)

    def do_POST(self) -> None:
        """Answer a call with a line of JSON for each of its answers."""
        path = self._path()
        if path is None:
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > _LONGEST_CALL:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        content = self.rfile.read(int(length))
        try:
            answers = self.server.calls.answers(path.removeprefix("calls/"), content)
        except KeyError:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        self._begin("application/x-ndjson; charset=utf-8")
        for answer in answers:
            self.wfile.write(json.dumps(answer, allow_nan=False).encode() + b"\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the lines would have the token."""

    def version_string(self) -> str:
        """The server's name."""
        return "colophon"

    def _path(self) -> str | None:
        """The path after the token; None if the request was refused."""
        host = self.headers.get("Host", "")
        origin = self.headers.get("Origin")
        site = self.headers.get("Sec-Fetch-Site", "none")
        is_ours = _host_name(host) in _HOSTS and origin in (None, f"http://{host}") and site in ("none", "same-origin")
        token, slash, path = urlsplit(self.path).path.removeprefix("/").partition("/")
        if not is_ours or not slash or not compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN)
            return None
        return path

    def _begin(self, kind: str, *, length: int | None = None) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self._end_headers()

    def _refuse(self, status: HTTPStatus) -> None:
        content = f"{status.value} {status.phrase}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self._end_headers()
        self.wfile.write(content)

    def _end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _resource(package: str, name: str) -> str:
    return files(f"colophon.pipeline.reports.{package}").joinpath(name).read_text(encoding="utf-8")
