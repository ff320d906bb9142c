"""Documents for training and testing probes: classes that are large enough, and parts that share no domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.groups import groups_of
from colophon.trainer.probes.fits import Split
from colophon.trainer.probes.report import ClassSize, Excluded

BY_DOCUMENT = "document"
"""The `split_by` that divides freely: each document is a group."""
MIN_DOCUMENTS = 20
"""Smaller classes are excluded."""
_MIN_DOCUMENTS_A_PART = 3
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
_PARTS = tuple(SHARES)
_MIN_SHARE_OF_SMALL_GROUPS = 0.2


@dataclass(frozen=True, kw_only=True)
class LabelledDocuments:
    """`n` documents with a class."""

    classes: list[str]
    """Names of the classes, the largest first."""
    rows: NumPyArray
    """int64 [n]: numbers of the documents, ascending."""
    labels: NumPyArray
    """int64 [n]: index of each document's class."""
    groups: NumPyArray
    """int64 [n]: each document's group, which is never divided between parts."""
    split: Split
    """Indices below n: 60, 20 and 20 % of each class, as nearly as whole groups allow."""
    split_by: str
    """The column whose values are the groups, or `document`."""
    excluded: Excluded
    """Excluded documents and classes, by reason."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of documents of each class in each part."""
        parts = self.split.named()
        return {
            name: {part: int((self.labels[index] == label).sum()) for part, index in parts.items()}
            for label, name in enumerate(self.classes)
        }


def label_documents(column: pa.Array, groups: pa.Array | None, *, name: str, split_by: str) -> LabelledDocuments:
    """Classes of documents by an annotation column, and a split that divides no group.

    A class is a value; floating-point numbers form five classes of similar size. Excluded are documents without a
    value, classes of fewer than 20 documents or fewer than 3 groups, and classes of which a part would have fewer than
    3 documents. If every class is in a single group (a host, in its domain), the split is by document. Documents
    without a group form one group.

    Args:
        column: [num_documents], the classes.
        groups: string [num_documents], which are not divided; None: each document is a group.
        name: the column's name, for errors.
        split_by: the name of the groups' column, for reports.

    Raises:
        TrainerError: fewer than two classes remain.
    """
    by_value, _ = groups_of(column, max_groups=len(column) + 1)
    numbers = _group_numbers(groups, num_documents=len(column))
    values = {group.value: group.rows for group in by_value if group.value is not None}
    if groups is not None and all(len(np.unique(numbers[rows])) == 1 for rows in values.values()):
        numbers, split_by = np.arange(len(column)), BY_DOCUMENT
    sizes = {v: ClassSize(documents=len(rows), groups=len(np.unique(numbers[rows]))) for v, rows in values.items()}
    large = {value: size for value, size in sizes.items() if size.documents >= MIN_DOCUMENTS}
    kept = [value for value, size in large.items() if size.groups >= len(_PARTS)]
    labels = np.full(len(column), -1)
    for label, value in enumerate(kept):
        labels[values[value]] = label
    parts = _divide(labels, numbers)
    complete = [
        c for c in range(len(kept)) if all((labels[part] == c).sum() >= _MIN_DOCUMENTS_A_PART for part in parts)
    ]
    excluded = Excluded(
        documents_without_value=len(column) - sum(map(len, values.values())),
        few_documents={value: size for value, size in sizes.items() if value not in large},
        few_groups={value: size for value, size in large.items() if value not in kept},
        few_documents_in_a_part={value: sizes[value] for c, value in enumerate(kept) if c not in complete},
    )
    if len(complete) < 2:
        raise TrainerError(_too_few_message(name, split_by, sizes, len(column), excluded))
    rows = np.flatnonzero(np.isin(labels, complete))
    return LabelledDocuments(
        classes=[kept[c] for c in complete],
        rows=rows,
        labels=np.searchsorted(complete, labels[rows]),
        groups=numbers[rows],
        split=Split(**{name: np.flatnonzero(np.isin(rows, part)) for name, part in zip(_PARTS, parts, strict=True)}),
        split_by=split_by,
        excluded=excluded,
    )


def _group_numbers(groups: pa.Array | None, *, num_documents: int) -> NumPyArray:
    """int64 [num_documents]: equal numbers for equal groups; nulls are one group."""
    if groups is None:
        return np.arange(num_documents)
    indices = groups.cast(pa.string()).dictionary_encode().indices
    numbers: NumPyArray = indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def _divide(labels: NumPyArray, groups: NumPyArray) -> list[NumPyArray]:
    """The documents of each part, int64; those of label -1 are in none.

    Whole groups, the largest first, go to the part where they bring the classes' counts nearest to the parts' shares:
    least sum of (count - expected)² / expected over parts and classes. Groups larger than a test part should be are for
    training if enough other groups remain: a score on one group would mean little.
    """
    documents = np.flatnonzero(labels >= 0)
    names, member = np.unique(groups[documents], return_inverse=True)
    counts = np.zeros((len(names), int(labels.max(initial=0)) + 1))
    np.add.at(counts, (member, labels[documents]), 1)
    expected = np.outer(list(SHARES.values()), np.maximum(counts.sum(axis=0), 1))
    filled = np.zeros_like(expected)
    part_of = np.zeros(len(names), np.int64)
    large = _too_large_to_test(counts.sum(axis=1))
    filled[0] = counts[large].sum(axis=0)
    for group in np.argsort(-counts.sum(axis=1), kind="stable"):
        if large[group]:
            continue
        added = counts[group]
        # ((filled + added - expected)² - (filled - expected)²) / expected
        change = (added * (2 * (filled - expected) + added) / expected).sum(axis=1)
        part_of[group] = int(np.argmin(change))
        filled[part_of[group]] += added
    return [documents[part_of[member] == part] for part in range(len(_PARTS))]


def _too_large_to_test(sizes: NumPyArray) -> NumPyArray:
    """bool [num_groups]: larger than a test part should be; all False if too few documents are in other groups."""
    large = sizes > SHARES["test"] * sizes.sum()
    enough = sizes[~large].sum() >= _MIN_SHARE_OF_SMALL_GROUPS * sizes.sum()
    return large if enough else np.zeros_like(large)


def _too_few_message(
    name: str, split_by: str, sizes: dict[str, ClassSize], num_documents: int, excluded: Excluded
) -> str:
    largest = ", ".join(f"{value} {size.documents}" for value, size in list(sizes.items())[:5]) or "none"
    remedy = " or --split-by document" if excluded.by_group() and split_by != BY_DOCUMENT else ""
    return (
        f"column {name!r} has fewer than two classes to probe in {num_documents} documents split by {split_by}: "
        f"the largest are {largest}; with fewer than {MIN_DOCUMENTS} documents: {len(excluded.few_documents)}, with "
        f"enough in fewer than {len(_PARTS)} groups: {len(excluded.few_groups)}, too much in one group: "
        f"{len(excluded.few_documents_in_a_part)} (more documents{remedy} may help)"
    )
