"""The trainer's errors."""

from __future__ import annotations

from colophon.shards.common.errors import ColophonError, ExitCode


class TrainerError(ColophonError, ValueError):
    """An invalid setting, shard or checkpoint; the message is one line."""

    exit_code = ExitCode.USAGE


class OutOfMemoryError(ColophonError, RuntimeError):
    """Too little memory on the device for a model or batch; the message is one line with advice."""


class DivergedError(ColophonError, RuntimeError):
    """A gradient that is not finite; the message is one line with advice."""


class NotWrittenError(ColophonError, RuntimeError):
    """A checkpoint or metrics that the disk has no space for; the message is one line with the file's name."""
