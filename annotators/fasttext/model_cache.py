"""Files on this machine that are made of model files once and mapped by every process: tables, and hashes of files.

They lie in `$COLOPHON_CACHE_DIR`, else `$XDG_CACHE_HOME/colophon`, else `~/.cache/colophon`; where that cannot be
written, in a directory of this user among the temporary files. They can be deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from colophon.annotators.base import AnnotatorError

_BLOCK_BYTES = 1 << 20


def cache_dir() -> Path:
    """The cache's directory, made if need be, for this user alone.

    Raises:
        AnnotatorError: neither the cache's own place nor the one among the temporary files can be written.
    """
    chosen = os.environ.get("COLOPHON_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    candidates = [Path(chosen)] if chosen else [Path(home, "colophon"), Path(tempfile.gettempdir(), _for_this_user())]
    for path in candidates:
        with suppress(OSError, RuntimeError):  # no home directory is a RuntimeError
            path.expanduser().mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(path.expanduser(), os.W_OK) and path.expanduser().stat().st_uid == os.getuid():
                return path.expanduser()
    raise AnnotatorError(f"{candidates[-1]}: not writable; set COLOPHON_CACHE_DIR to a directory that is")


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The directory `name` of the cache, filled by `make` if it is not there yet.

    It appears whole or not at all; of several processes that want it at once, one makes it and the others wait.
    """
    final = cache_dir() / name
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with _locked(final.with_name(final.name + ".lock")):
        if final.is_dir():
            return final
        unfinished = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        try:
            make(unfinished)
            unfinished.rename(final)
        except OSError as error:
            if not final.is_dir():  # without working locks another process may have been faster
                raise AnnotatorError(
                    f"{final}: {error.strerror or error}; COLOPHON_CACHE_DIR chooses another"
                ) from None
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return final


def file_sha256(path: str | Path) -> str:
    """sha256 of a file in hexadecimal; remembered on this machine for as long as size and modification time stay.

    Cost: 0.5 to 2 s a GB the first time, under a millisecond then.

    Raises:
        AnnotatorError: the file cannot be read.
    """
    try:
        status = Path(path).stat()
        identity = [str(Path(path).resolve()), status.st_size, status.st_mtime_ns, status.st_ino]
        note = cache_dir() / "sha256" / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}.txt"
        with suppress(FileNotFoundError):
            return note.read_text()
        digest = _sha256(Path(path))
    except OSError as error:
        raise AnnotatorError(f"{path}: {error.strerror}") from None
    _write_whole(note, digest)
    return digest


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _write_whole(path: Path, text: str) -> None:
    with suppress(OSError):  # a full disk: it is computed again then
        path.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(text)
        Path(file.name).rename(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        with suppress(OSError):  # file systems without locks: then whoever renames first has made it
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _for_this_user() -> str:
    return f"colophon-{os.getuid()}"
