"""The output of workers, also that of libraries in other languages: escaped and masked lines on stderr.

A worker's stdout and stderr are one pipe to the driver. So nothing that a worker prints reaches a terminal as it is,
and none of it is among a command's results.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection

from colophon.pipeline.errors import printable
from colophon.pipeline.executors.local.fork_server import CONTEXT
from colophon.shards.common.url_secrets import without_secrets

_CHUNK_BYTES = 1 << 16


class WorkerOutput:
    """A pipe for the output of workers, and a thread that prints its lines to stderr."""

    def __init__(self) -> None:
        """Start the thread."""
        self._end, self.for_workers = CONTEXT.Pipe(duplex=False)
        os.set_blocking(self._end.fileno(), False)
        self._rest = b""
        self._closing, self._closed = os.pipe()
        self._thread = threading.Thread(target=self._print_until_closed, name="output of workers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Print what has been written so far, and end the thread; a worker that still runs then prints nowhere."""
        os.close(self._closed)
        self._thread.join()
        os.close(self._closing)
        self.for_workers.close()
        self._end.close()

    def _print_until_closed(self) -> None:
        is_open = True
        while is_open:
            ready, _, _ = select.select([self._end.fileno(), self._closing], [], [])
            is_open = self._closing not in ready
            self._print_lines()
        self._print(self._rest)

    def _print_lines(self) -> None:
        """Print whole lines, since a secret is recognized in a whole one; a line of more than 64 KiB is cut."""
        with suppress(BlockingIOError):
            while data := os.read(self._end.fileno(), _CHUNK_BYTES):
                lines, line_end, rest = (self._rest + data).rpartition(b"\n")
                if not line_end and len(rest) < _CHUNK_BYTES:
                    self._rest = rest
                    continue
                self._print(lines + line_end or rest)
                self._rest = rest if line_end else b""

    def _print(self, data: bytes) -> None:
        if data:
            with suppress(AttributeError, OSError, ValueError):  # None, a full disk, a closed stream
                sys.stderr.write(printable(without_secrets(data.decode("utf-8", "replace"))))
                sys.stderr.flush()


def print_to(output: Connection) -> None:
    """Make a pipe the stdout and the stderr of this process."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            stream.flush()
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
