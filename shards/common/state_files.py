"""Reading of small JSON files that hold a run's state: settings, calibrations, the lock, the settings of a training.

Whatever has become of such a file, the error is one line with its path and what to do.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from colophon.shards.common.errors import DamagedFileError, one_line
from colophon.shards.common.output_paths import open_regular

MAX_STATE_BYTES = 64 << 20
"""A larger file is not one of ours: the largest, the settings of a training with many sources, have some kilobytes."""


def read_state(path: Path, *, remedy: str) -> dict[str, Any] | None:
    """The JSON object in a small file; None if the file does not exist.

    Args:
        path: the file.
        remedy: what to do about a damaged one, a sentence.

    Raises:
        DamagedFileError: it cannot be read, or see `parse_state`.
    """
    content = read_regular(path, max_bytes=MAX_STATE_BYTES, remedy=remedy)
    return None if content is None else parse_state(content, where=str(path), remedy=remedy)


def parse_state(content: str | bytes, *, where: str, remedy: str) -> dict[str, Any]:
    """The JSON object in the content of a file; `where` is its path in errors, `remedy` what to do.

    Raises:
        DamagedFileError: it is not UTF-8, not JSON, or not an object; it has NaN, or more levels than Python can read.
    """
    try:
        value = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{where}: damaged: {one_line(error)}. {remedy}") from None
    if not isinstance(value, dict):
        raise DamagedFileError(f"{where}: damaged: expected a JSON object, got {type(value).__name__}. {remedy}")
    return value


def read_regular(path: Path, *, max_bytes: int | None = None, remedy: str) -> bytes | None:
    """The bytes of a file; None if it does not exist.

    Args:
        path: below an output, the result of `inside`.
        max_bytes: a larger file is damaged; None: of any size.
        remedy: what to do about a damaged one, a sentence.

    Raises:
        OutputPathError: it is a link, a directory, a pipe or the like.
        DamagedFileError: it cannot be read, or has more than `max_bytes`.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                raise DamagedFileError(f"{path}: damaged: {size:,} bytes. {remedy}")
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read: {error.strerror}. {remedy}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
