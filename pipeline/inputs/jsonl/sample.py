"""The first lines of a JSONL file, read when a run is planned: its keys, and whether it has documents at all."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.jsonl.documents import NO_OBJECT, BadLineError, LineParser
from colophon.pipeline.inputs.jsonl.lines import open_lines, other_format
from colophon.pipeline.inputs.jsonl.start import Start
from colophon.shards.stores.retry import is_transient

SAMPLED_FILES = 64
"""The files of an input that are sampled, from the first; what the others hold is found when they are read."""
SAMPLED_BYTES = 1 << 20
"""Decompressed bytes of a file; of a store about twice as much is fetched in one request."""


@dataclass
class Sample:
    """The first lines of a file, until one is a document and all wanted keys are found."""

    keys: dict[str, None]
    """Keys in the order in which they occur; that of a member of an object in an object is `metadata.url`."""
    problem: str | None = None
    """Why no line is a document; None if one is, there is none, or the file cannot be read to the end of a line."""


def sampled(url: str, *, text: str, wanted: Collection[str]) -> Sample:
    """A sample of a file with documents whose text has the key `text`.

    Raises:
        InputError: the file is not UTF-8, or is JSON over several lines.
    """
    sample, start = Sample({}), Start()
    errors: list[tuple[int, bytes, BadLineError]] = []
    has_document = False
    depth = 1 + max((key.count(".") for key in wanted), default=0)
    parse = LineParser(text, ())
    for number, line in enumerate(_lines(url), start=1):
        try:
            if parse(line) is not None:
                has_document = True
                start.check(0, [])
        except BadLineError as error:
            errors.append((number, line, error))
            start.check(None, errors[-1:])
        sample.keys |= dict.fromkeys(_keys(line, depth))
        if has_document and all(key in sample.keys for key in wanted):
            break
    if errors and not has_document:
        sample.problem = _problem(errors)
    return sample


def _lines(url: str) -> Iterator[bytes]:
    options: dict[str, Any] = {"block_size": SAMPLED_BYTES} if "://" in url else {}
    try:
        with open_lines(url, **options) as file:
            content = file.read(SAMPLED_BYTES)
    except InputError:
        raise
    except Exception as error:  # the file is read again, and named, by the run
        if is_transient(error):
            raise
        return
    lines = content.split(b"\n")
    yield from lines if len(content) < SAMPLED_BYTES else lines[:-1]


def first_rows(url: str) -> Iterator[dict[str, Any]]:
    """The objects in the first lines of a file.

    Raises:
        InputError: the file is not UTF-8.
    """
    yield from (row for line in _lines(url) if isinstance(row := _value(line), dict))


def members(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values of a row in their order; those of members of objects in objects as `meta.url`."""
    waiting = [("", iter(row.items()))]
    while waiting:
        prefix, items = waiting[-1]
        for name, value in items:
            if isinstance(value, dict) and value:
                waiting.append((f"{prefix}{name}.", iter(value.items())))
                break
            yield f"{prefix}{name}", value
        else:
            waiting.pop()


def _value(line: bytes) -> Any:
    try:
        return json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return None


def _keys(line: bytes, depth: int) -> Iterator[str]:
    yield from _keys_of(_value(line), "", depth)


def _keys_of(value: Any, prefix: str, depth: int) -> Iterator[str]:
    if isinstance(value, dict) and depth:
        for key, inner in value.items():
            yield f"{prefix}{key}"
            yield from _keys_of(inner, f"{prefix}{key}.", depth - 1)


def _problem(errors: list[tuple[int, bytes, BadLineError]]) -> str:
    number, line, error = errors[0]
    name = None if error.kind == NO_OBJECT else other_format(line)
    if name is not None:
        return name
    if len(errors) == 1:
        return f"line {number}: {error}; the file has no other"
    return f"none of the first {len(errors)} lines is a document; line {number}: {error}"
