"""What the trainer cannot work with."""

from __future__ import annotations

from colophon.shards.common.errors import ColophonError, ExitCode


class TrainerError(ColophonError, ValueError):
    """A setting, a shard or a checkpoint that training cannot work with; the message is one line for a person."""

    exit_code = ExitCode.USAGE


class OutOfMemoryError(ColophonError, RuntimeError):
    """A model or batch that the device has too little memory for; the message is one line with advice."""


class DivergedError(ColophonError, RuntimeError):
    """A run whose numbers are no longer finite; the message is one line with advice."""


class NotWrittenError(ColophonError, RuntimeError):
    """A checkpoint or metrics for which the disk has no room; the message is one line that names the file."""
