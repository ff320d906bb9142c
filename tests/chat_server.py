"""An OpenAI-compatible server on loopback whose replies a test decides, request by request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TAGS = {"topic": "solar power", "format": "news article"}
USAGE = {"prompt_tokens": 100, "completion_tokens": 10}


@dataclass(frozen=True)
class Response:
    """A response of the server: a status, a body and headers; `cut` closes the connection after so many bytes of it."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


def completion(content: Any = TAGS, *, finish: str = "stop", usage: Any = USAGE, **message: Any) -> Response:
    """A chat completion with this content: a string, or a value as JSON."""
    text = content if isinstance(content, str | None) else json.dumps(content)
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return Response(json.dumps({"id": "x", "choices": [choice], "usage": usage}).encode())


def refusal(status: int, message: str = "", *, code: str | None = None, **headers: str) -> Response:
    """An error as OpenAI's and vLLM's servers send it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(json.dumps({"error": {"message": message, "code": code}}).encode(), status, named)


@dataclass
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    number: int
    """0 for the first request of the server."""

    @property
    def prompt(self) -> str:
        """The document's message."""
        return str(self.body["messages"][0]["content"])

    @property
    def is_repair(self) -> bool:
        """Whether it follows a reply that was no answer."""
        return len(self.body["messages"]) > 1


class ChatServer:
    """The server; `respond` may be replaced at any time, and may wait."""

    def __init__(self, respond: Callable[[Received], Response]) -> None:
        self.respond = respond
        self.received: list[Received] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _handler_of(self))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def prompts(self) -> list[str]:
        return [one.prompt for one in self.received]

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> Response:
        with self._lock:
            one = Received(path, headers, json.loads(body), len(self.received))
            self.received.append(one)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self.respond(one)
        finally:
            with self._lock:
                self._at_once -= 1

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def chat_server(respond: Callable[[Received], Response] = lambda one: completion()) -> Iterator[ChatServer]:
    """A server that runs until the block ends."""
    with ChatServer(respond) as server:
        yield server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that close their connection: tests do so."""


def _handler_of(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def log_message(self, format: str, *arguments: Any) -> None:
            """Log nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            response = server.answer(self.path, headers, body)
            self.send_response(response.status)
            for name, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.body[: response.cut])
            self.close_connection = response.cut is not None

    return Handler
