"""Reading of JSON files that hold a run's state: manifest, records, settings, calibrations, the lock, checkpoints.

Every such file is read here. Whatever has become of it, the error is one line with its path and what to do.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from colophon.shards.common.errors import DamagedFileError, one_line
from colophon.shards.common.output_paths import open_regular

MAX_STATE_BYTES = 64 << 20
"""A larger file is not one of ours: the largest, the settings of a training with many sources, have some kilobytes."""
_CHECKSUM = re.compile(r'"checksum": ?"([0-9a-f]*)"')
_LONGEST_KEY = 80

Model = TypeVar("Model", bound=BaseModel)


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


def read_model(model: type[Model], path: Path, *, remedy: str) -> Model | None:
    """The value of `model` in a small file; None if the file does not exist.

    Raises:
        DamagedFileError: it cannot be read, or see `parse_model`.
    """
    content = read_regular(path, max_bytes=MAX_STATE_BYTES, remedy=remedy)
    return None if content is None else parse_model(model, content, where=str(path), remedy=remedy)


def parse_state(content: str | bytes, *, where: str, remedy: str) -> dict[str, Any]:
    """The JSON object in the content of a file; `where` is its path in errors, `remedy` what to do.

    Raises:
        DamagedFileError: it is not UTF-8, not JSON, or not an object; it has a key twice, a number that is infinite or
            not one, half a surrogate pair, or more levels than Python can read.
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_without_repeated_keys)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DamagedFileError(f"{where}: damaged: half of a surrogate pair, which is no character. {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{where}: damaged: {one_line(error)}. {remedy}") from None
    if not isinstance(value, dict):
        raise DamagedFileError(f"{where}: damaged: expected a JSON object, got {type(value).__name__}. {remedy}")
    return value


def parse_model(model: type[Model], content: str | bytes, *, where: str, remedy: str) -> Model:
    """The value of `model` in the content of a file. Cost: the content is parsed twice.

    Raises:
        DamagedFileError: see `parse_state`; or a key is missing, unknown, or has a value of a different type.
    """
    parse_state(content, where=where, remedy=remedy)
    with _one_line(where, remedy):
        return model.model_validate_json(content)


def validated(model: type[Model], value: dict[str, Any], *, where: str, remedy: str) -> Model:
    """The value of `model` that a JSON object stands for.

    Raises:
        DamagedFileError: a key is missing, unknown, or has a value of a different type.
    """
    with _one_line(where, remedy):
        return model.model_validate(value)


@contextmanager
def _one_line(where: str, remedy: str) -> Iterator[None]:
    """Raise DamagedFileError in place of pydantic's error."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))[:_LONGEST_KEY]
        reason = ": ".join(filter(None, (where, "damaged", key, first["msg"])))
        raise DamagedFileError(f"{reason}. {remedy}") from None


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


def checksum_of(text: str) -> str:
    """sha256 of a file's text without the digits of its first key `checksum`."""
    place = _CHECKSUM.search(text)
    without = text if place is None else text[: place.start(1)] + text[place.end(1) :]
    return sha256(without.encode()).hexdigest()


def with_checksum(text: str) -> str:
    """The text of a JSON file whose first key is `checksum`, with its checksum in it."""
    return _CHECKSUM.sub(lambda place: place[0].replace(f'"{place[1]}"', f'"{checksum_of(text)}"'), text, count=1)


def is_as_written(text: str) -> bool:
    """Whether the text of a file is that of its checksum, byte by byte; False for files of older versions."""
    place = _CHECKSUM.search(text)
    return place is not None and place[1] == checksum_of(text)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"the number {number[:_LONGEST_KEY]} is too large")
    return value


def _without_repeated_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)[:_LONGEST_KEY]!r} occurs twice")
    return value
