"""The one place where an exception while a file is planned or read becomes an InputError, for its quarantine."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from colophon.pipeline.errors import InputError, one_line
from colophon.shards.common.errors import ColophonError
from colophon.shards.stores.retry import is_transient

_ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS}
"""The machine's disk is full or its limits are reached: no fault of the file that was read."""
_CLEAR_ALONE = (pa.ArrowException, OSError, EOFError, zlib.error)
"""Errors whose messages need no name of their type."""
_LONGEST_REASON = 300


@contextmanager
def input_errors() -> Iterator[None]:
    """Raise InputError for whatever a file's content makes a parser raise in the block, MemoryError included.

    Transient errors, those of the environment and our own pass as they are.

    Raises:
        InputError: with a short reason, in one line.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ColophonError) or is_transient(error) or _is_of_environment(error):
            raise
        raise InputError(_reason(error)) from error


def _is_of_environment(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _ENVIRONMENT


def _reason(error: Exception) -> str:
    line = one_line(error)
    is_clear = isinstance(error, _CLEAR_ALONE) or type(error) is ValueError or line == type(error).__name__
    reason = line if is_clear else f"{type(error).__name__}: {line}"
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"
