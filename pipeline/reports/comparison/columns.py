"""The distributions of annotation columns in two runs, side by side, and how far apart they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from colophon.pipeline.reports.page.charts import interval, label
from colophon.pipeline.reports.page.columns import Bins, Distribution, distributions, documents_in
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.run_output import RunOutput

OTHER = "(other values)"


@dataclass(frozen=True, kw_only=True)
class ComparedColumn:
    """One annotation column in two runs; None in the run that does not have it."""

    name: str
    before: Distribution | None
    after: Distribution | None
    values: tuple[str, ...] = ()
    """The values of both, strings by their frequency; of numbers, intervals in their order. Empty if there is nothing
    to compare: one lacks the column, its types differ, or nearly every document has its own value."""
    counts: tuple[tuple[int, int], ...] = ()
    """The documents with each value, in the first and in the second run."""
    bins: Bins | None = None
    """The intervals of numbers, the same for both runs."""

    @property
    def shares(self) -> list[tuple[float, float]]:
        """Each value's share of the documents that `counts` has, in the first and in the second run."""
        totals = [max(sum(column), 1) for column in zip(*self.counts, strict=True)]
        return [(before / totals[0], after / totals[1]) for before, after in self.counts]

    @property
    def total_variation(self) -> float | None:
        """Total variation distance ½ Σ |p(x) − q(x)| of the shares p and q of the values x.

        0: equal shares; 1: no value in common. At least this share of documents would have to change their value. A
        lower bound if some values are counted under `OTHER`. None if one of the runs has no value.
        """
        p, q = self._distributions()
        return None if p is None or q is None else float(np.abs(p - q).sum() / 2)

    @property
    def divergence(self) -> float | None:
        """Jensen-Shannon divergence in bits: H(½p + ½q) − ½H(p) − ½H(q) (Lin 1991, equation 3.1), from 0 to 1.

        H(p) = −Σ p(x) log2 p(x). A lower bound if some values are counted under `OTHER`. None if one of the runs has
        no value.
        """
        p, q = self._distributions()
        if p is None or q is None:
            return None
        return max(float(_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2), 0.0)

    def _distributions(self) -> tuple[NumPyArray | None, NumPyArray | None]:
        found = np.array(self.counts, np.float64).reshape(-1, 2).T
        p, q = (column / column.sum() if column.sum() else None for column in found)
        return p, q


def compared_columns(before: RunOutput, after: RunOutput) -> list[ComparedColumn]:
    """The columns of both runs, those of the first run first.

    Reads all annotation files, about a million documents at a time; columns of numbers a second time, in the same
    intervals for both runs.

    Raises:
        ShardError: a file cannot be read or differs from its record.
    """
    found = [{one.name: one for one in distributions(run)} for run in (before, after)]
    names = dict.fromkeys([*found[0], *found[1]])
    return [_compared(name, (before, after), (found[0].get(name), found[1].get(name))) for name in names]


def _compared(
    name: str, runs: tuple[RunOutput, RunOutput], pair: tuple[Distribution | None, Distribution | None]
) -> ComparedColumn:
    before, after = pair
    alone = ComparedColumn(name=name, before=before, after=after)
    if before is None or after is None or "unique" in (before.kind, after.kind):
        return alone
    if before.bins is None and after.bins is None:
        values, counts = _by_value(before, after)
        return ComparedColumn(name=name, before=before, after=after, values=values, counts=counts)
    ends = [_ends(one) for one in (before, after)]
    if None in ends:
        return alone
    bins = Bins(low=min(low for low, _ in filter(None, ends)), high=max(high for _, high in filter(None, ends)))
    numbers = [
        documents_in(bins, run, annotator=one.annotator, name=name)
        for run, one in zip(runs, (before, after), strict=True)
    ]
    return ComparedColumn(
        name=name,
        before=before,
        after=after,
        values=tuple(interval(*bins.edges(index)) for index in range(len(numbers[0]))),
        counts=tuple(zip(*numbers, strict=True)),
        bins=bins,
    )


def _by_value(before: Distribution, after: Distribution) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """The values of both columns and their documents; none if their types differ.

    Strings are ordered by their documents, the most frequent first; numbers and booleans are in their own order.

    Of a column with many values only the most frequent ones are known. A value that may be among the rest of one run
    is counted under `OTHER` in both.
    """
    first, second = dict(before.counts), dict(after.counts)
    if len({type(value) for value in (*first, *second)}) > 1:
        return (), ()
    has_all = [one.is_complete and one.distinct == len(one.counts) for one in (before, after)]
    shown = [v for v in {**first, **second} if (has_all[0] or v in first) and (has_all[1] or v in second)]
    by_frequency = all(isinstance(value, str) for value in shown)
    shown.sort(key=lambda value: (-first.get(value, 0) - second.get(value, 0) if by_frequency else 0, value))
    counts = [(first.get(value, 0), second.get(value, 0)) for value in shown]
    rest = before.known - sum(n for n, _ in counts), after.known - sum(n for _, n in counts)
    other = [rest] if any(rest) else []
    return (*map(label, shown), *(OTHER for _ in other)), (*counts, *other)


def _ends(column: Distribution) -> tuple[float, float] | None:
    """The lowest and highest number of a column; None of one that has other values."""
    if column.bins is not None:
        return column.bins.low, column.bins.high
    try:
        numbers = [float(value) for value, _ in column.counts]
    except ValueError:
        return None
    return (min(numbers), max(numbers)) if numbers else None


def _entropy(shares: NumPyArray) -> float:
    seen = shares[shares > 0]
    return float(-(seen * np.log2(seen)).sum())
