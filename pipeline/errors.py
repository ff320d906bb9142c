"""Errors that end a command with one line, and the text that such a line may show.

The whole exception tree is drawn in `shards/common/errors.py`.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

from colophon.shards.common.durable import final_path
from colophon.shards.common.errors import ColophonError, ExitCode, one_line
from colophon.shards.common.paths import why_missing

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # escape, carriage return, backspace; the second set of controls
    "\u061c\u180e\u200e\u200f\u202a-\u202e\u2060-\u206f"  # directions of text, invisible operators
    "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"  # lines, annotations, tags, surrogates
)
_SHOWN = 60
_MORE_MEMORY = "Raise its limits (`ulimit -v`, `ulimit -u`), or set fewer ray.num_workers"
_REMEDIES = {
    (errno.ENOSPC, errno.EDQUOT): "Free space there, or choose another place, and run the same command again",
    (errno.EROFS, errno.EACCES, errno.EPERM): "Give this user access, or choose another place",
    (errno.EIO, errno.ESTALE): "The disk or its server fails. Run the same command again",
    (errno.EMFILE, errno.ENFILE): "Raise the limit of open files, `ulimit -n`",
    (errno.EAGAIN,): "Raise the limit of processes, `ulimit -u`",
    (errno.EFBIG,): "Raise the limit of a file's size, `ulimit -f`",
    (errno.EEXIST,): "Choose another place",
    (errno.ENAMETOOLONG,): "Choose a shorter path",
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR): "Check the path",
}
"""Remedies for errors of the system that are no defects of a program."""

__all__ = [
    "InputError",
    "NodeError",
    "StoppedError",
    "StoreError",
    "UsageError",
    "one_line",
    "printable",
    "system_error",
]


class UsageError(ColophonError):
    """An invalid recipe, option or input, found before anything is written."""

    exit_code = ExitCode.USAGE


class StoppedError(ColophonError):
    """A training that a signal ended after it wrote a checkpoint; it can resume."""

    def __init__(self, message: str, *, signal_name: str) -> None:
        """Choose the exit code by `signal_name`, such as `SIGINT`; unknown names count as SIGTERM."""
        super().__init__(message)
        codes = {"SIGINT": ExitCode.INTERRUPTED, "SIGUSR1": ExitCode.USER_SIGNAL}
        self.exit_code = codes.get(signal_name, ExitCode.TERMINATED)


class InputError(ColophonError):
    """A file or partition that cannot be read; it is quarantined, and the run continues unless it is strict."""


class NodeError(ColophonError):
    """A model, vocabulary or module that this machine lacks; no input is at fault, and another machine may have it."""


class StoreError(ColophonError):
    """The output's disk or object store fails, retries included; the run ends, and committed files stay."""


def system_error(error: Exception) -> ColophonError | None:
    """The error of one line for a disk, a path, an argument or a limit; None if none of them is at fault."""
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't start new thread" in str(error)):
        what = "the memory or the threads of this process are used up"
        return ColophonError(f"{one_line(error)}: {what}. {_MORE_MEMORY}")
    if isinstance(error, UnicodeEncodeError) and any(error.object in argument for argument in sys.argv):
        return UsageError(f"an argument is not UTF-8: {error.object[:_SHOWN]!r}. Convert it")
    return None


def _of_system(error: OSError) -> ColophonError | None:
    if error.errno == errno.ENOENT and error.filename is None and not _has_working_directory():
        return UsageError("the working directory no longer exists. Change to another")
    is_path = isinstance(error.filename, str | bytes)
    path = final_path(os.fsdecode(error.filename)) if is_path else None
    if path is not None and (link := why_missing(path, otherwise="")):
        return UsageError(f"{path}: {link}. Create its target, or choose another place")
    remedy = next((remedy for numbers, remedy in _REMEDIES.items() if error.errno in numbers), None)
    if error.errno is None or remedy is None:
        return None
    place = "" if path is None else f"{path}: "
    return ColophonError(f"{place}{os.strerror(error.errno)}. {remedy}")


def _has_working_directory() -> bool:
    try:
        return Path.cwd().is_dir()
    except FileNotFoundError:
        return False


def printable(text: str) -> str:
    """Escape the characters that control a terminal or the direction of text (`\\x1b`); line breaks and tabs stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
