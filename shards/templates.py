"""Templates of metadata: text with annotation columns in braces, such as `{topic}, {quality_score:.1f}, {date:%Y}`.

After a colon a field may have a format specification of Python, as far as it is named here:

    text     [[fill]align][width][.precision][s], for strings; with an align alone for integers too
    number   [[fill]align][sign][0][width][,|_][.precision][type], the type of d x X o b (integers), e E f F g G %
    date     text with %Y %y %m %d %j %G %V %u %a %A %b %B %% and, of a timestamp in UTC, %H %I %M %S %f %p

Widths and precisions are at most 1,000. Bare widths and precisions such as `{x:8}` are those of text: a number needs
its type (`{x:8d}`), so that a specification alone decides how a value is read where only its text is known. Attributes,
indexes, conversions and fields inside of specifications do not exist.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from colophon.shards.common.times import iso_8601, moments_of, parsed_iso_8601

MAX_WIDTH = 1000
MAX_FIELDS = 100
"""Fields of a template: a document's metadata is built from all of them before it is cut."""
MAX_TEXT = 10_000
"""Characters of a template, and of any other text in a recipe."""

_SIZES = r"(?P<width>[1-9][0-9]*)?%s(?:\.(?P<precision>[0-9]+))?"
_TEXT = re.compile(rf"(?s)(?:.?(?P<align>[<>^]))?{_SIZES % ''}(?P<type>s?)")
_NUMBER = re.compile(rf"(?s)(?:.?[<>=^])?[+\- ]?0?{_SIZES % '[,_]?'}(?P<type>[dxXobeEfFgG%]?)")
_DATE = re.compile(r"(?:[^%]|%[YymdjGVuaAbBHIMSfp%])*", re.DOTALL)
_DIRECTIVE = re.compile(r"%(.)", re.DOTALL)
_OF_TIMES = frozenset("HIMSfp")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DIRECTIVES: dict[str, Callable[[datetime], str]] = {
    "Y": lambda time: f"{time.year:04d}",
    "y": lambda time: f"{time.year % 100:02d}",
    "m": lambda time: f"{time.month:02d}",
    "d": lambda time: f"{time.day:02d}",
    "j": lambda time: f"{time.timetuple().tm_yday:03d}",
    "G": lambda time: f"{time.isocalendar()[0]:04d}",
    "V": lambda time: f"{time.isocalendar()[1]:02d}",
    "u": lambda time: f"{time.isoweekday()}",
    "a": lambda time: _DAYS[time.weekday()][:3],
    "A": lambda time: _DAYS[time.weekday()],
    "b": lambda time: _MONTHS[time.month - 1][:3],
    "B": lambda time: _MONTHS[time.month - 1],
    "H": lambda time: f"{time.hour:02d}",
    "I": lambda time: f"{(time.hour - 1) % 12 + 1:02d}",
    "M": lambda time: f"{time.minute:02d}",
    "S": lambda time: f"{time.second:02d}",
    "f": lambda time: f"{time.microsecond:06d}",
    "p": lambda time: "AM" if time.hour < 12 else "PM",
    "%": lambda time: "%",
}
"""As in Python's `strftime` with the locale C, on every system: glibc writes the year 999 with three digits."""
_INTEGER_TYPES = frozenset("dxXob")
_FIRST_DAY, _LAST_DAY = np.datetime64("0001-01-01"), np.datetime64("9999-12-31")


@dataclass(frozen=True)
class Field:
    """A field of a template."""

    name: str
    """The annotation column."""
    spec: str
    """The format specification; empty: the value as it is."""

    @property
    def kind(self) -> Literal["text", "number", "date"] | None:
        """The kind of values that the specification formats; None without one."""
        return _kind(self.spec) if self.spec else None


class Template:
    """A template, cut into literals and fields.

    `parts` are pairs of a literal and the field after it; the last may have none.
    """

    def __init__(self, text: str) -> None:
        """Parse a template.

        Raises:
            ValueError: unmatched braces, a field without a name, or one with more than a column and a specification.
        """
        self.text = text
        self.parts = [(literal, _field(text, *rest)) for literal, *rest in string.Formatter().parse(text)]
        if len(self.fields) > MAX_FIELDS:
            raise ValueError(f"a template has at most {MAX_FIELDS} fields, not {len(self.fields):,}")

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields in order; a column may occur several times."""
        return tuple(field for _, field in self.parts if field is not None)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns, each once, in order."""
        return tuple(dict.fromkeys(field.name for field in self.fields))

    def misfits(self, types: Mapping[str, pa.DataType]) -> Iterator[tuple[str, str]]:
        """The columns of lists or structs, or whose type a specification does not fit, each with a line on the type."""
        for field in self.fields:
            if pa.types.is_nested(types[field.name]):
                yield field.name, f"{field.name} is {types[field.name]}; a template shows single values"
                continue
            problem = _misfit(field, types[field.name]) if field.spec else None
            if problem:
                yield field.name, f"{{{field.name}:{field.spec}}}: {field.name} is {types[field.name]}; {problem}"

    def values(self, columns: Mapping[str, pa.Array]) -> Iterator[tuple[str, Field | None, pa.Array | None]]:
        """Each literal, the field after it, and the field's text in each document: string [n], null as its column is.

        The text is null too where a specification does not fit a value: a year that Python does not have.
        """
        for literal, field in self.parts:
            yield literal, field, None if field is None else _formatted(columns[field.name], field.spec)

    def column_of_text(self, name: str, text: str | None) -> pa.Array:
        """One value of a column, given as text, in the type that its fields format: [1].

        Raises:
            ValueError: the text is no number or date, and a field formats one.
        """
        needed = {field.kind: field for field in self.fields if field.name == name and field.spec}
        if text is None or not {"number", "date"} & set(needed):
            return pa.array([text], pa.string())
        field = needed.get("date") or needed["number"]
        specs = "".join(each.spec for each in self.fields if each.name == name)
        has_time = bool(_OF_TIMES & set(_DIRECTIVE.findall(specs)))
        array = _date(text, has_time=has_time) if field.kind == "date" else _number(text)
        if array is None or any(_misfit(each, array.type) for each in needed.values()):
            kinds_named = {"date": "date such as 2024-03-01", "number": "number"}[str(field.kind)]
            raise ValueError(f"{name}: {text!r} is no {kinds_named}, as {{{name}:{field.spec}}} needs")
        return array


@lru_cache(maxsize=256)
def template_of(text: str) -> Template:
    """A template, parsed once.

    Raises:
        ValueError: see `Template`.
    """
    return Template(text)


def render(template: str, columns: Mapping[str, pa.Array], *, num_rows: int) -> pa.Array:
    """The metadata string of each document: string [num_rows].

    A null value gives an empty string. If all columns of the template are null, the result is null; packing treats it
    like dropped metadata and counts it as missing.
    """
    parts: list[pa.Array | str] = []
    used: list[pa.Array] = []
    for literal, _, values in template_of(template).values(columns):
        parts.append(literal)
        if values is not None:
            parts.append(values)
            used.append(values)
    if not used:
        return pa.array(["".join(map(str, parts))] * num_rows, pa.string())
    joined = pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="")
    known = pc.is_valid(used[0])
    for part in used[1:]:
        known = pc.or_(known, pc.is_valid(part))
    return pc.if_else(known, joined, pa.scalar(None, pa.string()))


def _field(template: str, name: str | None, spec: str | None, conversion: str | None) -> Field | None:
    if name is None:
        return None
    spec = spec or ""
    if not name.isidentifier() or conversion is not None or "{" in spec or "}" in spec:
        raise ValueError(
            f"template {template!r}: a field is a column name in braces, such as {{url}}, perhaps with a format: "
            "{score:.1f}, {date:%Y}"
        )
    if spec and (problem := _invalid(spec)):
        raise ValueError(f"template {template!r}: format {spec!r} of {name}: {problem}")
    return Field(name, spec)


def _kind(spec: str) -> Literal["text", "number", "date"] | None:
    if _TEXT.fullmatch(spec):
        return "text"
    if _NUMBER.fullmatch(spec):
        return "number"
    return "date" if _DATE.fullmatch(spec) and _DIRECTIVE.search(spec) else None


def _invalid(spec: str) -> str | None:
    """Why a specification is none; None if it is one."""
    kind = _kind(spec)
    if kind is None:
        return "expected one of text (`>8`, `.40`), a number (`.1f`, `03d`, `,d`) or a date (`%Y-%m-%d`)"
    found = {"text": _TEXT, "number": _NUMBER}.get(kind, _DATE).fullmatch(spec)
    sizes = [size for name, size in (found.groupdict() if found else {}).items() if name in ("width", "precision")]
    if any(size is not None and (len(size) > 4 or int(size) > MAX_WIDTH) for size in sizes):
        return f"width and precision are at most {MAX_WIDTH:,}"
    if kind == "number" and not _formats(spec, 0) and not _formats(spec, 0.5):
        return "no format of a number"
    return None


def _formats(spec: str, value: float) -> bool:
    try:
        format(value, spec)
    except ValueError:
        return False
    return True


def _misfit(field: Field, kind: pa.DataType) -> str | None:
    """Why a specification does not fit a column; None if it does."""
    if kinds.is_dictionary(kind):
        return _misfit(field, kind.value_type)
    for is_kind, fits, expected in _RULES:
        if is_kind(kind):
            return None if fits(field) else f"it takes {expected}"
    return "it takes no format"


def _fits_integer(field: Field) -> bool:
    if field.kind != "text":
        return field.kind == "number" and _formats(field.spec, 0)
    found = _TEXT.fullmatch(field.spec)
    return found is not None and bool(found["align"]) and found["precision"] is None and not found["type"]


def _fits_number(field: Field) -> bool:
    return field.kind == "number" and _formats(field.spec, 0.5)


def _fits_text(field: Field) -> bool:
    return field.kind == "text"


def _fits_time(field: Field) -> bool:
    return field.kind == "date"


def _fits_date(field: Field) -> bool:
    return field.kind == "date" and not _OF_TIMES & set(_DIRECTIVE.findall(field.spec))


_TEXT_FORMAT = "a format of text, such as >8 or .40"
_NUMBER_FORMAT = "a format of numbers that ends with f, e, g or %, such as .1f"
_RULES: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Field], bool], str], ...] = (
    (kinds.is_null, lambda field: True, ""),
    (kinds.is_string, _fits_text, _TEXT_FORMAT),
    (kinds.is_large_string, _fits_text, _TEXT_FORMAT),
    (kinds.is_string_view, _fits_text, _TEXT_FORMAT),
    (kinds.is_integer, _fits_integer, "a format of integers, such as 03d, ,d or .1f"),
    (kinds.is_floating, _fits_number, _NUMBER_FORMAT),
    (kinds.is_decimal, _fits_number, _NUMBER_FORMAT),
    (kinds.is_timestamp, _fits_time, "a format of times, such as %Y-%m-%d or %H:%M"),
    (kinds.is_date, _fits_date, "a format of dates without hours, such as %Y-%m-%d"),
)
"""The types that have formats, with the formats that fit."""


def _formatted(array: pa.Array, spec: str) -> pa.Array:
    """The text of each value: string [n]."""
    if kinds.is_timestamp(array.type) or kinds.is_date(array.type):
        return _formatted_dates(array, spec)
    if not spec:
        return array.cast(pa.string())
    if kinds.is_decimal(array.type):
        array = array.cast(pa.float64(), safe=False)
    return _by_distinct(array, lambda value: format(value, spec))


def _formatted_dates(array: pa.Array, spec: str) -> pa.Array:
    if not spec:
        return iso_8601(array)
    moments, is_moment = moments_of(array)
    days = moments.astype("datetime64[D]")
    is_moment &= (days >= _FIRST_DAY) & (days <= _LAST_DAY)
    times = pa.array(moments.astype("datetime64[us]"), pa.timestamp("us"), mask=~is_moment)
    return _by_distinct(times, lambda moment: _date_text(moment, spec))


def _date_text(moment: datetime, spec: str) -> str:
    return _DIRECTIVE.sub(lambda found: _DIRECTIVES[found[1]](moment), spec)


def _by_distinct(array: pa.Array, text: Callable[[Any], str]) -> pa.Array:
    distinct = array if kinds.is_dictionary(array.type) else array.dictionary_encode()
    texts = pa.array([None if v is None else text(v) for v in distinct.dictionary.to_pylist()], pa.string())
    return texts.take(distinct.indices)


def _number(text: str) -> pa.Array | None:
    for number, kind in ((int, pa.int64()), (float, pa.float64())):
        try:
            return pa.array([number(text)], kind)
        except (ValueError, OverflowError):
            continue
    return None


def _date(text: str, *, has_time: bool) -> pa.Array | None:
    """A date or, if the text or its format has hours, a time."""
    moment = parsed_iso_8601(text)
    if moment is None:
        return None
    array = pa.array([moment], pa.timestamp("us", "UTC"))
    return array if has_time or ":" in text else array.cast(pa.date32())
