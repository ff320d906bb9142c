"""Errors that end a command with one line, and the text that such a line may show.

The whole exception tree is drawn in `shards/common/errors.py`.
"""

from __future__ import annotations

import re

from colophon.shards.common.errors import ColophonError, ExitCode, one_line

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # escape, carriage return, backspace; the second set of controls
    "\u061c\u180e\u200e\u200f\u202a-\u202e\u2060-\u206f"  # directions of text, invisible operators
    "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"  # lines, annotations, tags, surrogates
)

__all__ = [
    "InputError",
    "NodeError",
    "StoppedError",
    "StoreError",
    "UsageError",
    "one_line",
    "printable",
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


def printable(text: str) -> str:
    """Escape the characters that control a terminal or the direction of text (`\\x1b`); line breaks and tabs stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
