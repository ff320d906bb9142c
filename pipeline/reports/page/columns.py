"""Distributions of annotation columns.

At most `_MOST_VALUES` distinct values of a column are kept in memory. Of a column with more, rare values are dropped
between queries, so that the counts of the others are lower bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import polars as pl

from colophon.pipeline.reports.page.scans import batches, collected, counted, summed
from colophon.shards.annotations import annotators_by_column
from colophon.shards.run_output import RunOutput

Kind = Literal["classes", "numbers", "names", "unique"]
"""A few values; numbers in bins; many values of which some are frequent; a different value for most documents."""
Value = str | int | bool

MOST_CLASSES = 40
NUM_BINS = 30
MOST_NAMES = 1_000
"""The most frequent values of `names` that are kept."""
_MOST_VALUES = 200_000
_KEPT_VALUES = 100_000
_FEWEST_UNIQUE = 1_000
_LONGEST_VALUE = 200
"""Characters of a string that are read: strings that begin with the same ones count as equal."""


@dataclass(frozen=True, kw_only=True)
class Bins:
    """`NUM_BINS` intervals of equal width from `low` to `high`; the last includes `high`."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """The width of an interval."""
        return self.high / NUM_BINS - self.low / NUM_BINS  # their difference could overflow

    def edges(self, index: int) -> tuple[float, float]:
        """The ends of an interval."""
        low, high = (self.low * (1 - place / NUM_BINS) + self.high * (place / NUM_BINS) for place in (index, index + 1))
        return low, high

    def index(self, number: pl.Expr) -> pl.Expr:
        """The number of each number's interval; null if it is not finite."""
        places = (number / self.width - self.low / self.width).floor().clip(0, NUM_BINS - 1)
        return pl.when(number.is_finite()).then(places).cast(pl.Int64)


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """The values of one annotation column over a run."""

    annotator: str
    name: str
    kind: Kind
    documents: int
    known: int
    """Documents whose value is not null."""
    key: pl.Expr
    """Each document's value as it is counted, or the number of its interval; named as the column."""
    counts: list[tuple[Value, int]]
    """Values and their documents, the most frequent first; of `numbers` each interval's number, in their order."""
    distinct: int = 0
    """Distinct values; of `numbers` 0."""
    is_complete: bool = True
    """False if values were dropped: `distinct` and the counts are lower bounds."""
    bins: Bins | None = None
    """The intervals of `numbers`."""


def distributions(run: RunOutput) -> Iterator[Distribution]:
    """Yield the distribution of each annotation column, in the order of the annotators.

    Raises:
        ShardError: a file cannot be read or differs from its record.
    """
    for name, annotator in annotators_by_column(run.directory, run.manifest).items():
        found = distribution(run, name, annotator=annotator)
        if found is not None:
            yield found


def distribution(run: RunOutput, name: str, *, annotator: str) -> Distribution | None:
    """The distribution of one column of an annotator; None of a nested column, and without documents.

    Raises:
        ShardError: a file cannot be read or differs from its record.
    """
    first = next(batches(run, [annotator]), None)
    dtype = None if first is None else collected(first.select(name).limit(0), run).schema[name]
    return None if dtype is None or dtype.is_nested() else _Survey(run, annotator, name, dtype).distribution()


def counted_value(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column's values as they are counted: years of dates, the beginning of strings, integers and booleans."""
    column = pl.col(name)
    if dtype in (pl.Date, pl.Datetime):
        return column.dt.year()
    if dtype.is_integer() or dtype == pl.Boolean:
        return column
    return column.cast(pl.String).str.head(_LONGEST_VALUE)


def documents_in(bins: Bins, run: RunOutput, *, annotator: str, name: str) -> list[int]:
    """The documents of each interval of `bins`, for a column of numbers.

    Raises:
        ShardError: a file cannot be read or differs from its record.
    """
    key = bins.index(pl.col(name).cast(pl.Float64)).alias(name)
    parts = [counted(batch, [key], run) for batch in batches(run, [annotator])]
    found: dict[int, int] = dict(summed(parts).iter_rows())
    return [found.get(index, 0) for index in range(NUM_BINS)]


@dataclass(frozen=True)
class _Survey:
    """The queries on one column."""

    run: RunOutput
    annotator: str
    name: str
    dtype: pl.DataType

    def distribution(self) -> Distribution:
        """The column's distribution: of floats, and of integers with many values, in bins."""
        totals, bins = self._totals, self._bins
        is_exact = self.dtype.is_float() or self.dtype.is_decimal()
        kind: Kind = "numbers"
        counts, is_complete = pl.DataFrame(), True
        if bins is None or not is_exact:
            counts, is_complete, kind = self._counts()
        key = counted_value(self.name, self.dtype)
        if bins is not None and (is_exact or kind == "names"):
            kind, key, is_complete = "numbers", bins.index(self._number).alias(self.name), True
        else:
            bins = None
        return Distribution(
            annotator=self.annotator,
            name=self.name,
            kind=kind,
            documents=totals["documents"],
            known=totals["known"],
            key=key,
            counts=(
                list(counts.head(MOST_NAMES).iter_rows())
                if bins is None
                else list(enumerate(documents_in(bins, self.run, annotator=self.annotator, name=self.name)))
            ),
            distinct=counts.height if bins is None else 0,
            is_complete=is_complete,
            bins=bins,
        )

    @property
    def _number(self) -> pl.Expr:
        return pl.col(self.name).cast(pl.Float64)

    @cached_property
    def _totals(self) -> dict[str, int]:
        sums = [pl.len().alias("documents"), pl.col(self.name).count().alias("known")]
        rows = [collected(batch.select(sums), self.run).row(0, named=True) for batch in self._batches()]
        return {key: sum(row[key] for row in rows) for key in ("documents", "known")}

    @cached_property
    def _bins(self) -> Bins | None:
        """Intervals from the lowest to the highest finite number; None of other values, and of a single one."""
        if not self.dtype.is_numeric():
            return None
        finite = self._number.filter(self._number.is_finite())
        ends = [finite.min().alias("low"), finite.max().alias("high")]
        rows = [collected(batch.select(ends), self.run).row(0) for batch in self._batches()]
        found = [(low, high) for low, high in rows if low is not None]
        low, high = min((low for low, _ in found), default=0.0), max((high for _, high in found), default=0.0)
        bins = Bins(low=low, high=high)
        return bins if bins.width > math.ulp(max(abs(low), abs(high))) else None

    def _counts(self) -> tuple[pl.DataFrame, bool, Kind]:
        """The documents by value, the most frequent first; whether all values are among them; what they are."""
        counts, is_complete, is_unique, seen = pl.DataFrame(), True, False, 0
        for batch in self._batches():
            found = counted(batch, [counted_value(self.name, self.dtype)], self.run)
            counts = summed([counts, found] if counts.width else [found])
            seen += int(found["n"].sum())
            is_unique = self.dtype == pl.String and is_complete and counts.height > max(_FEWEST_UNIQUE, seen / 2)
            if counts.height > _MOST_VALUES:
                is_complete = False
                if is_unique:  # the rest of URLs is like the first million
                    break
                counts = counts.head(_KEPT_VALUES)
        kind: Kind = "unique" if is_unique else "classes" if counts.height <= MOST_CLASSES else "names"
        return counts, is_complete, kind

    def _batches(self) -> Iterator[pl.LazyFrame]:
        return batches(self.run, [self.annotator])
