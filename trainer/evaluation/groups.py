"""Documents by the values of an annotation column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from colophon.shards.common.arrays import NumPyArray

MAX_GROUPS = 20
_BINS = 5


@dataclass(frozen=True, kw_only=True)
class Group:
    """Documents of one value."""

    value: str | None
    """None: documents without a value."""
    rows: NumPyArray
    """int64: numbers of the documents."""


def groups_of(
    column: pa.Array, *, max_groups: int = MAX_GROUPS, min_documents: int = 1
) -> tuple[list[Group], list[Group]]:
    """Documents grouped by value: the groups to measure, and the excluded smaller ones.

    Floating-point numbers form five groups of similar size, in ascending order. Each other value is a group, the
    largest first.

    Args:
        column: [num_documents].
        max_groups: further, smaller groups are excluded.
        min_documents: groups with fewer documents are excluded.
    """
    is_score = pa.types.is_floating(column.type)
    codes, names = _quintiles(column) if is_score else _values(column)
    groups = [
        Group(value=None if code < 0 else names[code], rows=np.flatnonzero(codes == code))
        for code in np.unique(codes).tolist()
    ]
    if not is_score:
        groups.sort(key=lambda group: (-len(group.rows), group.value is None, group.value or ""))
    shown = groups[:max_groups]
    kept = [group for group in shown if len(group.rows) >= min_documents]
    return kept, [group for group in shown if len(group.rows) < min_documents] + groups[max_groups:]


def by_value(groups: Sequence[Group], column: pa.Array) -> list[Group]:
    """Groups of numbers, such as bins of a score, in ascending order with missing values last; others unchanged."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return list(groups)
    return sorted(groups, key=lambda group: (group.value is None, _first_number(group.value)))


def _first_number(value: str | None) -> float:
    """3.0 for `3`, and 0.12 for `0.12 to 0.34`."""
    return float((value or "0").partition(" ")[0])


def _values(column: pa.Array) -> tuple[NumPyArray, list[str]]:
    """The index of each document's value, int64 [n], -1 for null; and the distinct values."""
    encoded = column.cast(pa.string()).dictionary_encode()
    codes = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    return codes, encoded.dictionary.to_pylist()


def _quintiles(column: pa.Array) -> tuple[NumPyArray, list[str]]:
    """The quintile of each document's number, int64 [n], -1 for null; and a name such as `0.12 to 0.34` for each."""
    numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)  # nulls become NaN
    known = np.isfinite(numbers)
    if not known.any():
        return np.full(len(column), -1), []
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, _BINS + 1)))
    names = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)] or [f"{edges[0]:.4g}"]
    return np.where(known, np.searchsorted(edges[1:-1], numbers, side="right"), -1), names
