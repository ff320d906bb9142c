"""Everything that a command prints goes through here: showing never decides over the work, and data cannot control it.

A stream that cannot be written to (a closed pipe, a full disk, a closed descriptor) is given up: the command continues
and ends with its own exit code. Characters that the terminal's encoding lacks are escaped, and so are control
characters, whatever text they come from: a document, a file name, a label, an error.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from colophon.pipeline.errors import printable
from colophon.shards.common.errors import ExitCode
from colophon.shards.common.url_secrets import without_secrets

if TYPE_CHECKING:
    from rich.console import Console

_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")
_FORCED_COLOUR = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS")
_FILE_WIDTH = 160
_ERRORS = "colophon.escape"
_IN_ASCII = str.maketrans({**dict.fromkeys("─━═", "-"), **dict.fromkeys("│┃║", "|"), "…": "...", "–": "-", "—": "-"})
_LINES = re.compile("[\u2500-\u257f]")


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Lines of tables in ASCII, other characters that the encoding lacks as `\\u4e2d`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = _LINES.sub("+", error.object[error.start : error.end].translate(_IN_ASCII))
    return text.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(_ERRORS, _escape_unencodable)


class GuardedStream(io.TextIOBase):
    """A text stream for `sys.stdout` or `sys.stderr` that never raises and passes no control characters on.

    Escape sequences for colours are passed to a terminal, since the parser of options prints them.
    """

    def __init__(self, stream: TextIO, *, name: str, is_filtered: bool = True) -> None:
        """Guard `stream`.

        Args:
            stream: the stream to write to.
            name: in the line about a failure. Secrets in URLs are masked in all that goes to `stderr`: tracebacks and
                lines of libraries name signed addresses. Results go to stdout as they are.
            is_filtered: False passes everything on, for a writer that escapes by itself.
        """
        self._stream, self._name, self._is_filtered = stream, name, is_filtered
        self.failure: OSError | None = None
        self.is_result = False
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors=_ERRORS)  # type: ignore[attr-defined]

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write `text`, or nothing if the stream has failed."""
        if not isinstance(text, str):
            raise TypeError(f"expected str, got {type(text).__name__}")
        self._try(lambda: self._stream.write(self._escaped(text) if self._is_filtered else text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream, unless it has failed."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        try:
            return self._stream.isatty()
        except ValueError:
            return False

    def close(self) -> None:
        """Do nothing: the stream belongs to the process."""

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor of the stream."""
        return self._stream.fileno()

    def unfiltered(self) -> GuardedStream:
        """The same stream for a writer that escapes by itself; a failure of one is known to both."""
        return _Unfiltered(self)

    def stop_filtering(self) -> None:
        """Pass control characters on from now on."""
        self._is_filtered = False

    def _escaped(self, text: str) -> str:
        text = without_secrets(text) if self._name == "stderr" else text
        if not (self.isatty() or any(map(os.environ.get, _FORCED_COLOUR))):
            return printable(text)
        parts = _STYLE.split(text)  # colours are at the odd places
        return "".join(part if place % 2 else printable(part) for place, part in enumerate(parts))

    def _try(self, call: Any) -> None:
        if self.failure is not None:
            return
        try:
            call()
        except OSError as error:
            self._give_up(error)
        except ValueError as error:  # closed, or lone surrogates in an encoding without backslashreplace
            if not isinstance(error, UnicodeError):
                self._give_up(OSError(errno.EBADF, os.strerror(errno.EBADF)))

    def _give_up(self, error: OSError) -> None:
        """Send all further output nowhere, also what is buffered; a line on stderr unless the reader has gone."""
        self.failure = error
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if error.errno != errno.EPIPE and self._name != "stderr":
            echo(f"colophon: {self._name} cannot be written: {error.strerror}; the command continues", err=True)


class _Unfiltered(GuardedStream):
    """A `GuardedStream` without its filter."""

    def __init__(self, guarded: GuardedStream) -> None:
        super().__init__(guarded._stream, name=guarded._name, is_filtered=False)
        self._guarded = guarded

    def _try(self, call: Any) -> None:
        self._guarded._try(call)


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Guard stdout and stderr while the context lasts. Closed ones go to /dev/null, so that no file gets their number.

    Raises:
        SystemExit: with 1 in place of 0, if a command whose output is its result could not write it.
    """
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    stdout = GuardedStream(before[0] or _nowhere(), name="stdout")
    stderr = GuardedStream(before[1] or _nowhere(), name="stderr")
    sys.stdout, sys.stderr = stdout, stderr
    try:
        yield
    except SystemExit as ended:
        stdout.flush()
        is_lost = stdout.failure is not None and stdout.failure.errno != errno.EPIPE
        if stdout.is_result and is_lost and not ended.code:
            raise SystemExit(int(ExitCode.FAILED)) from None
        raise
    finally:
        stdout.flush()
        stderr.flush()
        sys.stdout, sys.stderr = before


def output_is_the_result() -> None:
    """State that the running command only shows: it fails if its output cannot be written, a closed pipe excepted."""
    if isinstance(sys.stdout, GuardedStream):
        sys.stdout.is_result = True


def trust_libraries() -> None:
    """Pass control characters on from now on, for a library that draws its own progress bars."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, GuardedStream):
            stream.stop_filtering()


def is_first_process() -> bool:
    """Return whether this is the only process of a command, or the first that torchrun started: it prints."""
    return os.environ.get("RANK", "0") == "0"


def echo(line: object = "", *, err: bool = False, end: str = "\n") -> None:
    """Print a line; line breaks and tabs in it stay, other control characters are escaped."""
    stream = sys.stderr if err else sys.stdout
    stream.write(printable(str(line)) + end)
    stream.flush()


def echo_json(value: object) -> None:
    """Print a result as one JSON value, and nothing else on stdout; NaN and infinity are an error."""
    echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def progress_log(as_json: bool) -> Callable[[str], None]:
    """Return a function that prints lines about the work: to stderr where the result is JSON on stdout."""
    return partial(echo, err=as_json)


def make_console(*, err: bool = False) -> Console:
    """Return a rich console for tables and progress; text is never read as markup, and control characters are escaped.

    Output to a file is 160 columns wide: rich's default of 80 would fold lines.

    Args:
        err: the console writes to stderr.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class EscapingConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    stream = sys.stderr if err else sys.stdout
    file: Any = stream.unfiltered() if isinstance(stream, GuardedStream) else stream
    console = EscapingConsole(file=file, markup=False, emoji=False)
    return console if console.is_terminal else EscapingConsole(file=file, width=_FILE_WIDTH, markup=False, emoji=False)


def _open_closed_descriptors() -> None:
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - open until the process ends
