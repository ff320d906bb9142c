"""The source of each column that a stage reads: the input, or an annotator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from colophon.annotators.base import INPUT_IDS, Annotator, TypedColumn
from colophon.pipeline.inputs.columns import DOCUMENT_PLACES, FINEWEB_TYPES, ColumnNeed


def input_columns(annotator: Annotator) -> tuple[str, ...]:
    """The columns that an annotator reads, with the text in place of its ids: they are encoded from it."""
    return tuple(dict.fromkeys("text" if column == INPUT_IDS else column for column in annotator.columns))


@dataclass(frozen=True)
class ColumnSources:
    """The columns that a recipe's annotators write, and those that its stages need of the input."""

    annotators: tuple[Annotator, ...]
    names_in_input: Mapping[str, str]
    """The input's own name of a column by its FineWeb name, where they differ."""
    names_in_sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The same for each of several sources, by its name."""

    @cached_property
    def annotator_of(self) -> dict[str, str]:
        """The annotator that writes each annotation column."""
        return {column: annotator.name for annotator in self.annotators for column in annotator.schema.names}

    @cached_property
    def typed(self) -> dict[str, TypedColumn]:
        """The input columns that annotators read in a type of their own, by the annotators' names for them."""
        return {name: column for annotator in reversed(self.annotators) for name, column in annotator.typed.items()}

    def source(self, column: str) -> str | None:
        """The annotator that writes a column which an annotator reads; None: the column is the input's."""
        is_input = column in FINEWEB_TYPES or column in DOCUMENT_PLACES or column in self.typed
        return None if is_input else self.annotator_of.get(column)

    @property
    def known(self) -> list[str]:
        """The names that `[input.columns]` can map: FineWeb's, and those that an annotator reads of the input."""
        read = (
            self.typed[need.name].name if need.name in self.typed else need.name
            for need in self.annotate_needs
            if not need.is_place
        )
        return list(dict.fromkeys([*FINEWEB_TYPES, *read]))

    @property
    def annotate_needs(self) -> tuple[ColumnNeed, ...]:
        """The input columns that the annotators read."""
        columns = dict.fromkeys(c for a in self.annotators for c in input_columns(a) if self.source(c) is None)
        return tuple(self.need(column) for column in columns)

    @property
    def annotation_file_needs(self) -> tuple[ColumnNeed, ...]:
        """The input columns that annotation files are made from: those that annotators read, and the ids."""
        needs = self.annotate_needs
        return needs if any(need.name == "id" for need in needs) else (*needs, self.need("id", required=False))

    @property
    def tokenize_needs(self) -> tuple[ColumnNeed, ...]:
        """The text, and the id if the input has one: a row without id is named by its file and row."""
        return self.need("text"), self.need("id", required=False)

    @property
    def needs(self) -> dict[str, ColumnNeed]:
        """All input columns that a run reads, each once, by `ColumnNeed.name`."""
        return {need.name: need for need in (*self.annotate_needs, *self.tokenize_needs)}

    def need(self, column: str, *, required: bool = True) -> ColumnNeed:
        """The input column with this FineWeb name, with this name in `typed`, or of `DOCUMENT_PLACES`."""
        if column in DOCUMENT_PLACES:
            return ColumnNeed(column, column, required=False)
        typed = self.typed.get(column)
        name = column if typed is None else typed.name
        in_sources = {source: names[name] for source, names in self.names_in_sources.items() if name in names}
        others = self.names_in_sources.keys() - in_sources.keys()
        may_lack = required and column != "text" and len(self.names_in_sources) > 1
        need = ColumnNeed(
            column,
            self.names_in_input.get(name, name),
            required,
            in_sources=in_sources,
            optional_in=frozenset(others) if may_lack else frozenset(),
        )
        return need if typed is None else replace(need, read_as=typed.type, nested_as_json=False, key=typed.key)
