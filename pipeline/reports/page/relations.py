"""How annotation columns relate: the documents of each pair of their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl

from colophon.pipeline.reports.page.columns import Distribution, Value
from colophon.pipeline.reports.page.scans import batches, counted, summed
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.run_output import RunOutput

_MOST_COLUMNS = 8
_MOST_VALUES = 20


@dataclass(frozen=True, kw_only=True)
class Relation:
    """The documents by the values of two columns."""

    across: Distribution
    down: Distribution
    values: tuple[list[Value], list[Value]]
    """The values across and down: the most frequent ones of classes, the numbers of all intervals of numbers."""
    documents: NumPyArray
    """int64 [values down, values across]."""

    @property
    def information(self) -> float:
        """The mutual information of the two columns in bits (Cover and Thomas, Elements of Information Theory, 2.28).

        Of the documents that are shown; 0 if there are none.
        """
        joint = self.documents / max(self.documents.sum(), 1)
        apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
        seen = joint > 0
        return float((joint[seen] * np.log2(joint[seen] / apart[seen])).sum())


def relations(run: RunOutput, columns: Sequence[Distribution], *, most: int) -> list[Relation]:
    """The pairs of columns of different annotators with the most mutual information, at most `most`.

    Columns are those with 2 to 40 values, and numbers in bins; with many, the first ones.

    Raises:
        ShardError: a file cannot be read or differs from its record.
    """
    found = list(_relations(run, [one for one in columns if _has_axis(one)][:_MOST_COLUMNS]))
    return sorted(found, key=lambda relation: -relation.information)[:most]


def _has_axis(column: Distribution) -> bool:
    return column.kind == "numbers" or (column.kind == "classes" and column.distinct > 1)


def _relations(run: RunOutput, columns: Sequence[Distribution]) -> Iterator[Relation]:
    for one, other in combinations(columns, 2):
        if one.annotator == other.annotator:
            continue
        # Numbers read best from left to right, classes from top to bottom.
        across, down = (one, other) if one.kind == "numbers" else (other, one)
        keys = [across.key.alias("across"), down.key.alias("down")]
        parts = [counted(batch, keys, run) for batch in batches(run, [across.annotator, down.annotator])]
        if parts:
            values = _axis(across), _axis(down)
            yield Relation(across=across, down=down, values=values, documents=_grid(summed(parts), *values))


def _axis(column: Distribution) -> list[Value]:
    values = [value for value, _ in column.counts]
    return values if column.kind == "numbers" else sorted(values[:_MOST_VALUES])


def _grid(counts: pl.DataFrame, across: Sequence[Value], down: Sequence[Value]) -> NumPyArray:
    """int64 [down, across]: the documents of each pair; pairs with a value that is not shown are left out."""
    columns, rows = ({value: place for place, value in enumerate(axis)} for axis in (across, down))
    grid = np.zeros((len(down), len(across)), np.int64)
    for value_across, value_down, n in counts.select("across", "down", "n").iter_rows():
        if value_across in columns and value_down in rows:
            grid[rows[value_down], columns[value_across]] = n
    return grid
