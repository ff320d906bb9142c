"""Result files: JSON Lines, one record as soon as it is known, so that a part that is stopped keeps what it has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Write: TypeAlias = Callable[..., None]
"""Appends one record of these fields."""


def appender(path: Path) -> Write:
    """Return a function that appends a record to `path`, and leaves the file closed in between."""

    def write(**fields: Any) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")

    return write


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file; none where it is missing. A last line that a stopped part left half is dropped."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
