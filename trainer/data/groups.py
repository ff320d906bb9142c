"""Groups of text tokens by annotations of their documents (`group_by`): the loss of each value is logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from colophon.shards.annotations import find_column
from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.data.document_numbers import DocumentNumbers
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.groups import groups_of

NO_VALUE, OTHER_VALUES = "(none)", "(other)"


class TokenGroups(Protocol):
    """Groups of tokens by their documents."""

    numbers: DocumentNumbers
    num_columns: int
    dtype: type[np.signedinteger[Any]]

    def of(self, numbers: NumPyArray) -> NumPyArray:
        """[n, num_columns, width]: the group of each token by each column, from documents' numbers int64 [n, width]."""


class EachDocument:
    """Each document is a group: that of its number."""

    num_columns, dtype = 1, np.int64

    def __init__(self, numbers: DocumentNumbers) -> None:
        self.numbers = numbers

    def of(self, numbers: NumPyArray) -> NumPyArray:
        """int64 [n, 1, width]: the numbers; -1 for padding."""
        return numbers[:, None]


class TextGroups:
    """The group of each document by each of some columns.

    The groups of a column are its values, or fifths of its numbers, as `colophon evaluate --by` has them: the twenty
    with the most documents, and one of all others. So each text token is in one group of each column.
    """

    dtype = np.int16

    def __init__(self, columns: Sequence[str], numbers: DocumentNumbers) -> None:
        """Read the columns of all documents.

        Raises:
            ShardError: no annotator has a column (the choices are listed), or a file differs from its record.
            TrainerError: a column has different types in two runs.
        """
        self.numbers = numbers
        self.num_columns = len(columns)
        self.groups: list[tuple[str, str]] = []
        """The column and the value of each group, by group number."""
        codes = []
        for column in columns:
            values, own = _groups(_read(column, numbers))
            codes.append(own + len(self.groups))
            self.groups += [(column, value) for value in values]
        # The last row is that of padding, which has number -1; it has no text, so its group does not count.
        self._codes = np.zeros((numbers.num_documents + 1, len(columns)), self.dtype)
        for place, of_column in enumerate(codes):
            self._codes[:-1, place] = of_column

    def of(self, numbers: NumPyArray) -> NumPyArray:
        """int16 [n, num_columns, width]: the group of each token by each column, from documents' numbers [n, width]."""
        found: NumPyArray = self._codes[numbers].swapaxes(1, 2)
        return found


def _read(column: str, numbers: DocumentNumbers) -> pa.Array:
    """The column's values, one for each document number."""
    parts = []
    for packed in numbers.layouts:
        annotations = find_column(packed.output, packed.manifest, column)
        for partition, size in zip(packed.partitions, numbers.sizes(packed), strict=True):
            parts += annotations.read(partition).slice(0, size).chunks
    parts = [part.dictionary_decode() if pa.types.is_dictionary(part.type) else part for part in parts]
    types = {part.type for part in parts}
    if len(types) > 1:
        raise TrainerError(f"group_by: column {column!r} has different types: {', '.join(sorted(map(str, types)))}")
    return pa.concat_arrays(parts) if parts else pa.array([], pa.string())


def _groups(column: pa.Array) -> tuple[list[str], NumPyArray]:
    """The names of a column's groups, and int64 [num_documents]: the group of each document."""
    shown, excluded = groups_of(column)
    names = [NO_VALUE if group.value is None else group.value for group in shown]
    codes = np.full(len(column), len(names))
    for number, group in enumerate(shown):
        codes[group.rows] = number
    return [*names, *([OTHER_VALUES] if excluded else [])], codes
