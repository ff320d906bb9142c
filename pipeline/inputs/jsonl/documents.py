"""One JSON line as the values of the needed columns.

Whether a line is a document depends on the line and the text's key alone, never on the other columns that a pass reads:
all outputs of a partition have the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from colophon.pipeline.errors import one_line
from colophon.pipeline.inputs.columns import SHOWN_COLUMNS, ColumnNeed, splits
from colophon.pipeline.inputs.jsonl.lines import Line
from colophon.pipeline.inputs.jsonl.scanner import members, members_at, value_at, whole_value_at
from colophon.pipeline.inputs.limits import TOO_LARGE, is_above, text_too_large, utf8_bytes
from colophon.pipeline.inputs.row_batches import Number
from colophon.pipeline.recipe.schema import DEFAULT_MAX_DOCUMENT_BYTES
from colophon.shards.common.errors import listed

_MISSING: Any = object()
_TWICE: Any = []
"""The value of a key that a line has twice: no column takes a list, so that it becomes null and is counted."""
_INEXACT = 2.0**63
"""A float from here on may be an integer that orjson has rounded."""
_ANY_NUMBER = 2**31 - 1
"""Keys of a line that was scanned: the scanner finds those that occur twice."""

_SCANNED_BYTES = 4 << 20
"""Longer lines are scanned: orjson takes up to 30 bytes for a byte of values that nothing needs, such as `[],[],`."""
_ESCAPED_LETTER = r"\\u00[2-7]"
Parsed = tuple[list[Any], int]
_Take = Callable[[str, Sequence[int]], Any]
NO_OBJECT = "no object"
"""The kind of a line that is JSON, but not an object."""


class BadLineError(ValueError):
    """A line that is not a document."""

    def __init__(self, reason: str, *, kind: str) -> None:
        """State the reason, and the kind by which such lines are counted together."""
        super().__init__(reason)
        self.kind = kind


class LineParser:
    """Parses lines into the values of `needs`.

    A column `metadata.url` is the member `url` of the object `metadata`, unless a line has a key of that whole name:
    the rule of `columns.paths_of`. Cost: that of orjson. Lines that orjson refuses or reads inexactly are scanned:
    numbers as ids, and, after a search in all lines of a batch, keys that occur twice. Lines
    of more than 4 MiB are scanned too.
    """

    def __init__(
        self, text: str, needs: Sequence[ColumnNeed], *, max_document_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES
    ) -> None:
        """Parse documents whose text has the key `text` and at most `max_document_bytes` as UTF-8."""
        self._text = text
        self._limit = max_document_bytes
        self._keys = [need.in_input for need in needs]
        self._take: list[_Take] = [
            _single if need.read_as is None else _last if need.nested_as_json else _whole for need in needs
        ]
        self._nests = [need.occurrence is None for need in needs]
        self._dotted = [n for n, key in enumerate(self._keys) if "." in key and self._nests[n]]
        self._id = next((place for place, need in enumerate(needs) if need.name == "id"), None)
        self._spelt = [n for n, need in enumerate(needs) if need.read_as == pa.string() and not need.nested_as_json]
        keys = dict.fromkeys((text, *self._keys))
        self._heads = frozenset(name for key in keys for name in (key, *(head for head, _ in splits(key))))
        # `a.b` and `a.c.d` have the paths `a.b`, `a.c` and `a.c.d` inside of `a`.
        self._paths = sorted({tuple(key.split(".")[:n]) for key in keys for n in range(2, key.count(".") + 2)})
        self._names = dict.fromkeys(name for key in keys for name in (*self._heads, *key.split(".")))
        self._keys_pattern = f'"(?:{"|".join(map(_re2, self._names))})"'
        self._exact_keys = re.compile(b"|".join(map(_spelt, self._names)))

    def __call__(self, line: Line) -> Parsed | None:
        """The values of the columns, None where the line has none, and the `expected` of `repeated`.

        None for a blank line.

        Raises:
            BadLineError: the line is not a document.
        """
        if len(line) > _SCANNED_BYTES:
            return None if line.isspace() else self.scanned(line)
        try:
            row = orjson.loads(line)
        except ValueError as error:
            return self.scanned(line, error) if line and not line.isspace() else None
        if type(row) is not dict:
            raise BadLineError(f"a JSON {type(row).__name__}, not an object", kind=NO_OBJECT)
        text = row.get(self._text)
        if type(text) is not str:
            text = _nested(row, self._text)
            self._check_text(text, row)
        values: list[Any] = list(map(row.get, self._keys))
        for place in self._dotted:
            found = _nested(row, self._keys[place])
            values[place] = None if found is _MISSING else found
        if self._id is not None and type(values[self._id]) is float:
            return self.scanned(line)
        if any(type(values[n]) is float and abs(values[n]) >= _INEXACT for n in self._spelt):
            return self.scanned(line)
        if len(line) > self._limit:
            self._check_size(text, values)
        has_all = not self._paths and None not in values
        return values, len(self._names) if has_all else self._num_keys(row)

    def _check_text(self, text: Any, keys: Mapping[str, Any]) -> None:
        if text is None or type(text) is str:
            return
        if text is _TWICE:
            raise BadLineError(f"key {self._text!r} twice", kind="text twice")
        if text is not _MISSING:
            name = "a number" if isinstance(text, Number) else type(text).__name__
            raise BadLineError(f"{self._text!r} is {name}, not a string", kind="no string")
        shown = listed(list(keys), most=SHOWN_COLUMNS)
        raise BadLineError(f"no key {self._text!r}; keys: {shown}", kind="no text")

    def _check_size(self, text: Any, values: Sequence[Any]) -> None:
        if type(text) is str and is_above(text, self._limit):
            found = None if self._id is None else values[self._id]
            document = found.spelling if isinstance(found, Number) else None if found is None else str(found)
            reason = text_too_large(utf8_bytes(text), self._limit, document=document)
            raise BadLineError(reason, kind=TOO_LARGE)

    def repeated(self, block: Line, lines: Sequence[Line], expected: Mapping[int, int]) -> list[int]:
        """The places of the lines in which a needed key may occur twice. One search in the block is usually enough.

        Args:
            block: the lines, joined.
            lines: all lines.
            expected: for the places of documents, how many needed keys they should have, those inside included.
        """
        whole = _one_value(block)
        is_escaped = pc.match_substring_regex(whole, _ESCAPED_LETTER)[0].as_py()
        if not is_escaped and pc.count_substring_regex(whole, self._keys_pattern)[0].as_py() == sum(expected.values()):
            return []
        return [place for place, n in expected.items() if len(self._exact_keys.findall(lines[place])) > n]

    def _num_keys(self, row: Mapping[str, Any]) -> int:
        """How many of the needed names are keys of the row, those in objects inside included."""
        inside = sum(_has_path(row, path) for path in self._paths)
        return inside + sum(name in row for name in self._heads)

    def scanned(self, line: Line, refused: ValueError | None = None) -> Parsed | None:
        """As a call, member by member: exact numbers, and keys that occur twice.

        Args:
            line: a line.
            refused: the error of the fast parser, for the reason.

        Raises:
            BadLineError: the line is not a document.
        """
        try:
            decoded = line.decode()
        except UnicodeDecodeError as error:
            raise BadLineError(f"not UTF-8: {error}", kind="no UTF-8") from None
        if decoded.startswith("\ufeff"):  # before the first line of a file, and where files were joined
            return self(decoded[1:].encode())
        try:
            places = members(decoded, self._heads)
        except ValueError as error:
            raise BadLineError(f"not JSON: {one_line(refused or error)}", kind="no JSON") from None
        text = _found(decoded, places, self._text, _single)
        self._check_text(text, places if text is not _MISSING else _all_keys(decoded))
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            reason = f"{self._text!r} has half of a surrogate pair, which is not a character"
            raise BadLineError(reason, kind="half a character") from None
        found = (
            text  # not a second time: it may be large
            if key == self._text and take is _single and nests
            else _found(decoded, places if nests else {k: v for k, v in places.items() if k == key}, key, take)
            for key, take, nests in zip(self._keys, self._take, self._nests, strict=True)
        )
        values = [None if value is _MISSING else value for value in found]
        if len(line) > self._limit:
            self._check_size(text, values)
        return values, _ANY_NUMBER


def _nested(row: Mapping[str, Any], key: str) -> Any:
    """The value of a key, or of `a.b` in an object in an object."""
    if key in row:
        return row[key]
    for head, rest in splits(key):
        inner = row.get(head)
        found = _nested(inner, rest) if type(inner) is dict else _MISSING
        if found is not _MISSING:
            return found
    return _MISSING


def _has_path(row: Any, path: Sequence[str]) -> bool:
    """Whether each name is a key of the object that the name before it holds."""
    for name in path:
        if type(row) is not dict or name not in row:
            return False
        row = row[name]
    return True


def _found(line: str, places: Mapping[str, list[int]], key: str, take: _Take) -> Any:
    """As `_nested`, for a scanned line; `take` gives the value of a key at its places."""
    if key in places:
        return take(line, places[key])
    for head, rest in splits(key):
        if head not in places:
            continue
        if len(places[head]) > 1:
            return _TWICE
        at = places[head][0]
        if line[at] == "{":
            inner, _ = members_at(line, at, {rest, *(first for first, _ in splits(rest))})
            found = _found(line, inner, rest, take)
            if found is not _MISSING:
                return found
    return _MISSING


def _single(line: str, places: Sequence[int]) -> Any:
    return value_at(line, places[0]) if len(places) == 1 else _TWICE


def _whole(line: str, places: Sequence[int]) -> Any:
    """The value with all that is in it."""
    return whole_value_at(line, places[0]) if len(places) == 1 else _TWICE


def _last(line: str, places: Sequence[int]) -> Any:
    """The last value with all that is in it."""
    return whole_value_at(line, places[-1])


class _Everything:
    """A collection that contains every name."""

    def __contains__(self, name: object) -> bool:
        return True


def _all_keys(line: str) -> Mapping[str, Any]:
    return members(line, _Everything())


def _one_value(block: Line) -> pa.Array:
    """The bytes as the only value of an array, without a copy."""
    offsets = pa.py_buffer(np.array([0, len(block)], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(block)])


def _re2(name: str) -> str:
    """A pattern of a name, for RE2."""
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):x}}}" for c in name)


def _spelt(name: str) -> bytes:
    r"""A pattern of a key as JSON may spell it, such as `"te\u0078t" :`."""
    spelt = (b"(?:%b|(?i:\\\\u%04x))" % (re.escape(c.encode()), ord(c)) for c in name)
    return b'"' + b"".join(spelt) + b'"[ \t]*:'
