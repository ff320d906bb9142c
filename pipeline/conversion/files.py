"""The files of a conversion: written once, hashed on the way, and read back before the conversion is complete.

Hashing takes about as long as writing. Large pieces are hashed in a thread while they are written and the next ones are
derived, and files are read back several at a time.
"""

from __future__ import annotations

import io
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from colophon.pipeline.concurrency import in_threads
from colophon.pipeline.errors import StoreError
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.output_paths import inside

_LARGE_BYTES = 1 << 18
"""Smaller pieces are hashed sooner than a thread would begin."""


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A complete file of a conversion."""

    path: str
    """Relative to the conversion's directory."""
    bytes: int
    sha256: str


class OutputFile(io.RawIOBase):
    """A file that is written from its start to its end; libraries that write to a file object can write to it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        self.path = path
        self.bytes = 0
        self._digest = sha256()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hashing")  # without a thread until it is used
        self._hashing: Future[None] | None = None
        self._file = path.open("xb")

    def write(self, data: Any) -> int:
        """Append the bytes of a buffer, such as a contiguous array, which must not change afterwards."""
        view = memoryview(data)
        if not view.nbytes:
            return 0
        view = view.cast("B")
        self._wait()
        if len(view) < _LARGE_BYTES:
            self._digest.update(view)
        else:
            self._hashing = self._thread.submit(self._digest.update, view)
        self._file.write(view)
        self.bytes += len(view)
        return len(view)

    def writable(self) -> bool:
        """True."""
        return True

    def flush(self) -> None:
        """Give buffered bytes to the system."""
        if not self._file.closed:
            self._file.flush()

    def tell(self) -> int:
        """Bytes so far."""
        return self.bytes

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._wait()
        self._thread.shutdown()
        super().close()

    def _wait(self) -> None:
        """Wait until the piece before is hashed."""
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None

    @property
    def sha256(self) -> str:
        """The digest of the bytes so far, hexadecimal."""
        return self._digest.hexdigest()


class OutputFiles:
    """All files of one conversion, in a directory that nobody else writes to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, OutputFile] = {}

    def create(self, name: str) -> OutputFile:
        """A new file; `name` is relative to the directory, and may have one directory in it."""
        file = OutputFile(inside(self._directory, name))
        self._files[name] = file
        return file

    def close(self) -> None:
        """Close all files; those of a failed conversion may be open."""
        for file in self._files.values():
            file.close()

    def check(self) -> list[WrittenFile]:
        """Read every file back, and list them.

        Raises:
            StoreError: a file is not on the disk as it was written.
        """
        return in_threads(self._checked, [*self._files])

    def _checked(self, name: str) -> WrittenFile:
        file = self._files[name]
        size, digest = file.path.stat().st_size, file_sha256(file.path)
        if (size, digest) != (file.bytes, file.sha256):
            raise StoreError(f"{name}: the disk returned other bytes than were written ({size:,} of {file.bytes:,})")
        return WrittenFile(path=name, bytes=size, sha256=digest)
