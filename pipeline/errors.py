"""Errors that a person sees as one line, and the exit code each ends the command with."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the `colophon` command returns."""

    COMPLETE = 0
    FAILED = 1
    USAGE = 2
    QUARANTINED = 3
    """Completed, but some input was left out: `quarantine.jsonl` says what and why."""


class ColophonError(Exception):
    """Anything that stops a command for a reason a person can act on."""

    exit_code = ExitCode.FAILED


class UsageError(ColophonError):
    """A recipe, an option or an input that cannot work: found before anything is written."""

    exit_code = ExitCode.USAGE


class InputError(ColophonError):
    """A file or partition that cannot be read; it is quarantined and the run goes on unless it is strict."""
