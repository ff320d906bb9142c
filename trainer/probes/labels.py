"""Which documents a probe learns from and is tested on: classes large enough, and parts that share no domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.groups import groups_of
from colophon.trainer.probes.fits import Parts
from colophon.trainer.probes.report import ClassSize, LeftOut

BY_DOCUMENT = "document"
"""What a split is by where any two documents may be in different parts."""
MIN_DOCUMENTS = 20
"""Smaller classes are left out."""
_MIN_DOCUMENTS_A_PART = 3
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
_PARTS = tuple(SHARES)
_LEAST_LEFT = 0.2


@dataclass(frozen=True, kw_only=True)
class LabelledDocuments:
    """Documents with a class; `n` of them."""

    classes: list[str]
    """Names, the largest class first."""
    rows: NumPyArray
    """int64 [n]: their numbers among all documents, ascending."""
    labels: NumPyArray
    """int64 [n]: of their class."""
    groups: NumPyArray
    """int64 [n]: what is never divided between parts."""
    parts: Parts
    """Of indices below n: 60, 20 and 20 % of each class, as nearly as whole groups allow."""
    split_by: str
    """What a group is: a column's name, or `document`."""
    left_out: LeftOut
    """Documents, and classes, that are not among them, by reason."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Documents of each class by part."""
        names = self.parts.named()
        return {
            name: {part: int((self.labels[index] == label).sum()) for part, index in names.items()}
            for label, name in enumerate(self.classes)
        }


def label_documents(column: pa.Array, groups: pa.Array | None, *, name: str, split_by: str) -> LabelledDocuments:
    """Classes and parts of documents by an annotation column.

    A class is a value; numbers with a fraction make five classes of about equal size. Left out, and named, are
    documents without a value, classes of fewer than 20 documents or fewer than 3 groups, and classes of which some part
    would have fewer than 3 documents. Where every class lies in one group alone (a host, in its domain), the split is
    by document. Documents whose group is not known are one group.

    Args:
        column: [num_documents], the classes.
        groups: string [num_documents]: what must not be divided; None: nothing.
        name: of the column, for errors.
        split_by: what `groups` are, for reports.

    Raises:
        TrainerError: fewer than two classes are left.
    """
    found, _ = groups_of(column, max_groups=len(column) + 1)
    numbers = _group_numbers(groups, num_documents=len(column))
    values = {group.value: group.rows for group in found if group.value is not None}
    if groups is not None and all(len(np.unique(numbers[rows])) == 1 for rows in values.values()):
        numbers, split_by = np.arange(len(column)), BY_DOCUMENT
    sizes = {v: ClassSize(documents=len(rows), groups=len(np.unique(numbers[rows]))) for v, rows in values.items()}
    large = {value: size for value, size in sizes.items() if size.documents >= MIN_DOCUMENTS}
    kept = [value for value, size in large.items() if size.groups >= len(_PARTS)]
    labels = np.full(len(column), -1)
    for label, value in enumerate(kept):
        labels[values[value]] = label
    parts = _divide(labels, numbers)
    whole = [c for c in range(len(kept)) if all((labels[part] == c).sum() >= _MIN_DOCUMENTS_A_PART for part in parts)]
    left_out = LeftOut(
        documents_without_value=len(column) - sum(map(len, values.values())),
        few_documents={value: size for value, size in sizes.items() if value not in large},
        few_groups={value: size for value, size in large.items() if value not in kept},
        undivided={value: sizes[value] for c, value in enumerate(kept) if c not in whole},
    )
    if len(whole) < 2:
        raise TrainerError(_too_few(name, split_by, sizes, len(column), left_out))
    rows = np.flatnonzero(np.isin(labels, whole))
    return LabelledDocuments(
        classes=[kept[c] for c in whole],
        rows=rows,
        labels=np.searchsorted(whole, labels[rows]),
        groups=numbers[rows],
        parts=Parts(**{name: np.flatnonzero(np.isin(rows, part)) for name, part in zip(_PARTS, parts, strict=True)}),
        split_by=split_by,
        left_out=left_out,
    )


def _group_numbers(groups: pa.Array | None, *, num_documents: int) -> NumPyArray:
    """int64 [num_documents]: equal where the group is; what is null is one group."""
    if groups is None:
        return np.arange(num_documents)
    indices = groups.cast(pa.string()).dictionary_encode().indices
    numbers: NumPyArray = indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def _divide(labels: NumPyArray, groups: NumPyArray) -> list[NumPyArray]:
    """Documents of each part, int64; those of label -1 are in none.

    Whole groups, the largest first, go where they bring the classes' counts nearest to the parts' shares: least sum of
    (count - expected)² / expected over parts and classes. Groups larger than all of a test part should be are for
    training, where enough others are left: scores on one group say little of others.
    """
    documents = np.flatnonzero(labels >= 0)
    names, member = np.unique(groups[documents], return_inverse=True)
    counts = np.zeros((len(names), int(labels.max(initial=0)) + 1))
    np.add.at(counts, (member, labels[documents]), 1)
    expected = np.outer(list(SHARES.values()), np.maximum(counts.sum(axis=0), 1))
    filled = np.zeros_like(expected)
    part_of = np.zeros(len(names), np.int64)
    large = _for_training(counts.sum(axis=1))
    filled[0] = counts[large].sum(axis=0)
    for group in np.argsort(-counts.sum(axis=1), kind="stable"):
        if large[group]:
            continue
        added = counts[group]
        change = (added * (2 * (filled - expected) + added) / expected).sum(axis=1)
        part_of[group] = int(np.argmin(change))
        filled[part_of[group]] += added
    return [documents[part_of[member] == part] for part in range(len(_PARTS))]


def _for_training(sizes: NumPyArray) -> NumPyArray:
    """bool [num_groups]: too large for another part than the first; none, where too little would be left for those."""
    large = sizes > SHARES["test"] * sizes.sum()
    enough = sizes[~large].sum() >= _LEAST_LEFT * sizes.sum()
    return large if enough else np.zeros_like(large)


def _too_few(name: str, split_by: str, sizes: dict[str, ClassSize], num_documents: int, left_out: LeftOut) -> str:
    largest = ", ".join(f"{value} {size.documents}" for value, size in list(sizes.items())[:5]) or "none"
    freely = " or --split-by document" if left_out.by_group() and split_by != BY_DOCUMENT else ""
    return (
        f"column {name!r} has fewer than two classes to tell apart in {num_documents} documents split by {split_by}: "
        f"its largest are {largest}; with fewer than {MIN_DOCUMENTS} documents: {len(left_out.few_documents)}, with "
        f"enough in fewer than {len(_PARTS)} groups: {len(left_out.few_groups)}, too much in one group: "
        f"{len(left_out.undivided)} (more documents{freely} may help)"
    )
