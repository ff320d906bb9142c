"""The source of each column that a stage reads: the input, or an annotator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from colophon.annotators.base import Annotator
from colophon.pipeline.inputs.columns import FINEWEB_TYPES, ColumnNeed


@dataclass(frozen=True)
class ColumnSources:
    """The columns that a recipe's annotators write, and those that its stages need of the input."""

    annotators: tuple[Annotator, ...]
    names_in_input: Mapping[str, str]
    """The input's own name of a column by its FineWeb name, where they differ."""

    @cached_property
    def annotator_of(self) -> dict[str, str]:
        """The annotator that writes each annotation column."""
        return {column: annotator.name for annotator in self.annotators for column in annotator.schema.names}

    def source(self, column: str) -> str | None:
        """The annotator that writes a column which an annotator reads; None: the column is the input's."""
        return None if column in FINEWEB_TYPES else self.annotator_of.get(column)

    @property
    def annotate_needs(self) -> tuple[ColumnNeed, ...]:
        """The input columns that the annotators read."""
        columns = dict.fromkeys(c for a in self.annotators for c in a.columns if self.source(c) is None)
        return tuple(self.need(column) for column in columns)

    @property
    def tokenize_needs(self) -> tuple[ColumnNeed, ...]:
        """The text, and the id if the input has one: a row without id is named by its file and row."""
        return self.need("text"), self.need("id", required=False)

    def need(self, column: str, *, required: bool = True) -> ColumnNeed:
        """The input column with this FineWeb name."""
        return ColumnNeed(column, self.names_in_input.get(column, column), required)
