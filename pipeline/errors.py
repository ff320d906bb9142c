"""Errors that a person sees as one line, and the exit code each ends the command with."""

from __future__ import annotations

import re

from colophon.shards.common.errors import ColophonError, ExitCode
from colophon.shards.common.errors import one_line as first_line

_WHO = re.compile(r"(?<=://)[^/\s'\"]*@|(?<=\bs3://)[^/\s'\"]*:[^\s'\"]*@")
_PASSWORD = re.compile(r"://[^/\s]*:[^/\s]*@|\bs3://[^/\s]*:[^\s]*@")
_SIGNATURE = re.compile(
    r"[?&](x-(amz|goog)-(credential|security-token|signature)|(access_)?token|signature|sig|api_?key|password)=", re.I
)
_QUERY = re.compile(r"(https?://[^\s'\"?]*\?)[^\s'\"]+")


class UsageError(ColophonError):
    """A recipe, an option or an input that cannot work: found before anything is written."""

    exit_code = ExitCode.USAGE


class StoppedError(ColophonError):
    """A training that a signal ended, cleanly: it goes on from its checkpoint."""

    def __init__(self, message: str, *, signal_name: str) -> None:
        """`signal_name` is `SIGTERM` and so on; one that is not known, of another process, counts as SIGTERM."""
        super().__init__(message)
        codes = {"SIGINT": ExitCode.INTERRUPTED, "SIGUSR1": ExitCode.USER_SIGNAL}
        self.exit_code = codes.get(signal_name, ExitCode.TERMINATED)


class InputError(ColophonError):
    """A file or partition that cannot be read; it is quarantined and the run goes on unless it is strict."""


class StoreError(ColophonError):
    """The store of the output fails, also when it is asked again; the run ends, and what it committed stays."""


def without_secrets(text: str) -> str:
    """The text with `***` for names and passwords in URLs, and for what stands behind the `?` of a web address.

    A store may send its reader to a signed address, and a library says in its errors where it was.
    """
    return _QUERY.sub(r"\1***", _WHO.sub("***@", text))


def has_secret(url: str) -> bool:
    """Whether a URL has a password in it, or is signed."""
    return bool("://" in url and (_PASSWORD.search(url) or _SIGNATURE.search(url)))


def one_line(error: BaseException) -> str:
    """The first line of an error's message, without secrets; see `shards.common.errors.one_line`."""
    return without_secrets(first_line(error))


def printable(text: str) -> str:
    """`text` with control characters, escape sequences among them, as `\\x1b`; line breaks and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
