"""Conditions on annotation columns, checked and turned into queries. A document without a value meets none but null."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import reduce
from operator import and_

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from colophon.pipeline.errors import UsageError
from colophon.pipeline.reports.page.columns import counted_value
from colophon.shards.common.errors import did_you_mean, listed

MOST_FILTERS = 50
_MOST_VALUES = 1_000
_LONGEST_TEXT = 1_000
_SHOWN_COLUMNS = 20
_EXACT = "="


class Filter(BaseModel):
    """Conditions on one column; a document must meet all that are set."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    column: str
    any_of: tuple[str | int | bool | None, ...] = Field((), max_length=_MOST_VALUES)
    """Values as the page of `colophon report` counts them: years of dates. None: the document has no value."""
    contains: str = Field("", max_length=_LONGEST_TEXT)
    """A part of a string in any case of letters; `=reddit.com` is the whole string as it is."""
    low: float | str | None = None
    """The least number, or the first day as `2024-12-31`."""
    high: float | str | None = None
    """The largest number, or the last day."""


def condition(filters: Sequence[Filter], types: Mapping[str, pl.DataType]) -> pl.Expr:
    """A boolean column without null: whether a document meets all filters, of which there is one at least.

    Raises:
        UsageError: a column does not exist, or a condition does not fit its type; the message lists the choices.
    """
    conditions = [one for each in filters for one in _conditions(each, types)]
    return reduce(and_, conditions, pl.lit(value=True)).fill_null(value=False)


def _conditions(chosen: Filter, types: Mapping[str, pl.DataType]) -> Iterator[pl.Expr]:
    name = chosen.column
    if name not in types:
        available = listed(list(types), most=_SHOWN_COLUMNS) or "none"
        raise UsageError(f"unknown column {name!r}; available: {available}{did_you_mean(name, types)}")
    dtype, column = types[name], pl.col(name)
    yield pl.lit(value=True)
    if chosen.any_of:
        yield _any_of(chosen, dtype)
    if chosen.contains:
        if dtype != pl.String:
            raise UsageError(f"{name}: `contains` is for strings, and the column has {dtype}")
        yield containing(column, chosen.contains)
    for bound, is_low in ((chosen.low, True), (chosen.high, False)):
        if bound is not None:
            value, limit = _ordered(name, dtype, bound)
            yield value >= limit if is_low else value <= limit


def containing(texts: pl.Expr, wanted: str) -> pl.Expr:
    """Whether strings contain a text in any case of letters; whether they equal it as it is after a `=`."""
    if wanted.startswith(_EXACT):
        return texts == wanted.removeprefix(_EXACT)
    return texts.str.to_lowercase().str.contains(wanted.lower(), literal=True)


def _any_of(chosen: Filter, dtype: pl.DataType) -> pl.Expr:
    known = [value for value in chosen.any_of if value is not None]
    kind = bool if dtype == pl.Boolean else str if dtype == pl.String else int
    wrong = next((value for value in known if type(value) is not kind), None)
    if wrong is not None or dtype.is_float() or dtype.is_nested():
        found = "" if wrong is None else f", not {wrong!r}"
        raise UsageError(f"{chosen.column}: the column has values of type {dtype}{found}")
    key = counted_value(chosen.column, dtype)
    # Values that the type cannot hold, such as 300 in a column of 8 bits, match nothing.
    is_known = key.cast(pl.Int64).is_in(known) if kind is int else key.is_in(known)
    return is_known.fill_null(value=None in chosen.any_of)


def _ordered(name: str, dtype: pl.DataType, bound: float | str) -> tuple[pl.Expr, pl.Expr]:
    """The column and the bound in a type in which they can be compared."""
    column = pl.col(name)
    if dtype.is_numeric():
        if isinstance(bound, str):
            raise UsageError(f"{name}: the bounds of a column of numbers are numbers, not {bound!r}")
        return column.cast(pl.Float64), pl.lit(bound)
    if dtype in (pl.Date, pl.Datetime):
        try:
            return column.cast(pl.Date), pl.lit(date.fromisoformat(str(bound)))
        except ValueError:
            raise UsageError(f"{name}: the bounds of a column of dates are days such as 2024-12-31") from None
    raise UsageError(f"{name}: only numbers and dates have bounds, and the column has {dtype}")
