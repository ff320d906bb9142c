"""The schema of an export: one for all of its files, agreed from the surveys of all partitions.

Columns that the run reads have the name and the type in which it reads them. Other input columns keep their names; one
that clashes gets `_input`. Annotation columns follow; one that clashes and is not everywhere the input's gets
`_annotated`. A second clash adds a number: `x_annotated_2`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from colophon.pipeline.export.column_types import common_type, export_type
from colophon.pipeline.export.survey import InputColumn, Survey
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.partitions import SCHEMAS
from colophon.shards.outputs import Output

_UNNAMED = "unnamed"


@dataclass(frozen=True)
class ExportColumn:
    """A column of the input as it is exported."""

    name: str
    type: pa.DataType
    need: ColumnNeed


@dataclass(frozen=True)
class AnnotationColumn:
    """A column of an annotator as it is exported."""

    name: str
    type: pa.DataType
    output: Output
    column: str


@dataclass(frozen=True)
class ExportSchema:
    """The columns of every exported file."""

    inputs: tuple[ExportColumn, ...]
    annotations: tuple[AnnotationColumn, ...]

    def arrow(self, metadata: Mapping[str, str]) -> pa.Schema:
        """As a schema of Arrow."""
        fields = [*((c.name, c.type) for c in self.inputs), *((c.name, c.type) for c in self.annotations)]
        return pa.schema(fields, dict(metadata))

    def needs(self, partition: Partition) -> list[ColumnNeed]:
        """The columns to read of a partition. Values of JSON have no type of their own: they get the export's."""
        read = {c.need.in_source(partition.source_name).in_input for c in self.inputs if c.need.occurrence is None}
        # A column that one source has under its own name may be one that the run reads in this source.
        needs = [c.need for c in self.inputs if c.need.occurrence != 0 or c.need.in_input not in read]
        if partition.format in ("parquet", *SCHEMAS):
            return needs
        types = {column.need.name: column.type for column in self.inputs}
        single = [need for need in needs if not need.occurrence]  # an object has no second key of a name
        return [need if need.occurrence is None else replace(need, read_as=types[need.name]) for need in single]


def agreed(
    surveys: Sequence[Survey],
    *,
    needs: Mapping[str, ColumnNeed],
    mapping: Mapping[str, str],
    annotations: Mapping[str, tuple[Output, pa.DataType]],
) -> ExportSchema:
    """The schema for the partitions of these surveys.

    Args:
        surveys: one for each partition.
        needs: the columns that the run reads, by FineWeb name.
        mapping: the input's own name of a column by its FineWeb name, where they differ.
        annotations: output and type of each annotation column.
    """
    inputs = _input_columns(surveys, needs=needs, mapping=mapping)
    taken = {column.name for column in inputs}
    kept: list[AnnotationColumn] = []
    for column, (output, kind) in annotations.items():
        if column in taken and all(column in survey.repeated for survey in surveys):
            continue
        name = _free(column, taken, suffix="_annotated")
        taken.add(name)
        kept.append(AnnotationColumn(name, _final(export_type(kind)), output, column))
    return ExportSchema(tuple(inputs), tuple(kept))


def _input_columns(
    surveys: Sequence[Survey], *, needs: Mapping[str, ColumnNeed], mapping: Mapping[str, str]
) -> list[ExportColumn]:
    read: dict[InputColumn, list[ColumnNeed]] = {}
    for need in needs.values():
        read.setdefault(InputColumn(need.in_input, is_read=True), []).append(need)
    types: dict[InputColumn, set[pa.DataType]] = {}
    for survey in surveys:
        names = {InputColumn(each[0].in_source(survey.source_name).in_input): column for column, each in read.items()}
        for column, kind in survey.columns.items():
            types.setdefault(names.get(column, column), set()).add(kind)
    renamed = {InputColumn(own): name for name, own in mapping.items() if name not in needs}
    taken = {*needs, *(name for column, name in renamed.items() if column in types)}
    columns: list[ExportColumn] = []
    for number, column in enumerate((*types, *(column for column in read if column not in types))):
        if column in read:
            columns += [_as_read(need, types.get(column, set())) for need in read[column]]
            continue
        name = renamed.get(column) or _free(_numbered(column), taken, suffix="_input")
        taken.add(name)
        need = ColumnNeed(f"column {number}", column.name, required=False, occurrence=column.occurrence)
        columns.append(ExportColumn(name, _final(common_type(types[column])), need))
    return columns


def _as_read(need: ColumnNeed, types: Collection[pa.DataType]) -> ExportColumn:
    return ExportColumn(need.name, _final(need.type or common_type(types)), need)


def _numbered(column: InputColumn) -> str:
    name = column.name or _UNNAMED
    return f"{name}_{column.occurrence + 1}" if column.occurrence else name


def _final(kind: pa.DataType) -> pa.DataType:
    """Columns without any value are strings: not all tools have a type for nulls."""
    return pa.string() if pa.types.is_null(kind) else kind


def _free(name: str, taken: Collection[str], *, suffix: str) -> str:
    if name not in taken:
        return name
    name += suffix
    numbered = (f"{name}_{number}" for number in range(2, len(taken) + 3))
    return next(each for each in (name, *numbered) if each not in taken)
