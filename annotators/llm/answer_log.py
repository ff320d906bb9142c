"""The replies that were received: each is appended to a file before it is used, so a killed run loses none of them.

A directory holds the replies to one question. Each process that writes has a file of its own there, locked while it
lives, and reads the files of all others. So there is nothing that two processes write, a file system without locks
costs one file for each process, and a directory that several machines share works as on one. A line is complete or is
ignored: a process that is killed while it writes, or a full disk, spoils its own last line alone.

Cost: one `write` for each reply, a sync for each batch, and about 200 bytes of memory for each stored reply.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

import orjson

from colophon.annotators.llm.replies import Reply
from colophon.shards.common.cache_directory import CacheError
from colophon.shards.common.durable import sync_open_file

_KEY_DIGITS = 32
_FILE_BITS = 44
"""A place is the number of a file, then the byte in it."""
_SUFFIX = ".jsonl"
_BLOCK_BYTES = 16 << 20
"""More than the longest line: a reply of `client._MOST_REPLY_BYTES`, each byte of it escaped."""
_LINE_BYTES = 2048


def key_of(request: bytes) -> bytes:
    """The 16 bytes under which the reply to a request is stored."""
    return blake2b(request, digest_size=_KEY_DIGITS // 2).digest()


class AnswerLog:
    """The stored replies to the requests of one question, for any number of threads."""

    def __init__(self, directory: Path) -> None:
        """Open a directory, which exists and is private."""
        self._directory = directory
        self._lock = threading.Lock()
        self._files: list[int] = []
        self._read: list[int] = []
        self._numbers: dict[str, int] = {}
        self._places: dict[bytes, int] = {}
        self._own: int | None = None

    def refresh(self) -> None:
        """Read what other processes have appended since the last call."""
        with self._lock, self._errors():
            for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
                self._read_on(self._number(path.name))

    def get(self, request: bytes) -> Reply | None:
        """The stored reply to a request; None if there is none."""
        with self._lock, self._errors():
            place = self._places.get(key_of(request))
            return None if place is None else self._reply_at(place)

    def add(self, request: bytes, reply: Reply) -> None:
        """Store a reply. A process that is killed afterwards has it."""
        line = key_of(request).hex().encode() + b" " + orjson.dumps([reply.content, reply.finish]) + b"\n"
        with self._lock, self._errors():
            if self._own is None:
                self._own = self._own_file()
            handle = self._files[self._own]
            if os.write(handle, line) != len(line):
                raise OSError(0, "the disk is full")
            self._read_on(self._own)

    def sync(self) -> None:
        """Wait until the replies of this process are on the disk: then a machine that loses power has them too."""
        with self._lock, self._errors():
            if self._own is not None:
                sync_open_file(self._files[self._own])

    def close(self) -> None:
        """Close all files, and leave the own one to other processes."""
        with self._lock:
            for handle in self._files:
                os.close(handle)
            self._files.clear()

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._files.append(os.open(self._directory / name, flags, 0o600))
            self._read.append(0)
            self._numbers[name] = len(self._files) - 1
        return self._numbers[name]

    def _own_file(self) -> int:
        """The number of a file that no living process has: one that a process left, or a new one."""
        for number, handle in enumerate(self._files):
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._end_line(handle)
                return number
        number = self._number(f"{uuid4().hex}{_SUFFIX}")
        with suppress(OSError):  # a file system without locks: no other process finds the file free either
            fcntl.flock(self._files[number], fcntl.LOCK_EX | fcntl.LOCK_NB)
        return number

    @staticmethod
    def _end_line(handle: int) -> None:
        """End the line that a killed process left unfinished; it is then ignored."""
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            os.write(handle, b"\n")

    def _read_on(self, number: int) -> None:
        """Index the complete lines that a file has more than at the last call."""
        while block := os.pread(self._files[number], _BLOCK_BYTES, self._read[number]):
            end = block.rfind(b"\n") + 1
            start = 0
            while start < end:
                with suppress(ValueError):  # a line that is no reply
                    key = bytes.fromhex(block[start : start + _KEY_DIGITS].decode("ascii"))
                    self._places[key] = number << _FILE_BITS | self._read[number] + start
                start = block.index(b"\n", start) + 1
            self._read[number] += end
            if not end:
                return

    def _reply_at(self, place: int) -> Reply | None:
        number, start = place >> _FILE_BITS, place & (1 << _FILE_BITS) - 1
        line = b""
        while b"\n" not in line and (more := os.pread(self._files[number], _LINE_BYTES, start + len(line))):
            line += more
        try:
            content, finish = orjson.loads(line.partition(b"\n")[0][_KEY_DIGITS + 1 :])
            return Reply(str(content), str(finish))
        except (ValueError, TypeError):
            return None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheError(f"{self._directory}: {error.strerror or error}; stored replies are kept") from None
