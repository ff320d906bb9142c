"""The first pass of an export: which columns each partition has, in which types.

Of Parquet, Arrow and CSV the schema is read, and those columns whose values decide: dates and timestamps, which may be
beyond the years that other tools read, and columns that an annotation may repeat. JSON lines are parsed once more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from colophon.pipeline.errors import InputError
from colophon.pipeline.export.annotations import AnnotationRows
from colophon.pipeline.export.column_types import export_type, exported, in_python_years, is_calendar
from colophon.pipeline.inputs.columns import ColumnNeed, clean_names
from colophon.pipeline.inputs.failures import input_errors
from colophon.pipeline.inputs.jsonl.lines import Line, lines_of
from colophon.pipeline.inputs.jsonl.pieces import open_blocks
from colophon.pipeline.inputs.limits import line_limit
from colophon.pipeline.inputs.mappings import WARC_COLUMNS
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.readers import PartitionReader, schema_of
from colophon.pipeline.stages.tasks import Task, TaskResult
from colophon.pipeline.storage.commits import Store
from colophon.shards.outputs import Output

_MOST_KEYS = 1000
_INT64 = (-(2**63), 2**63 - 1)


@dataclass(frozen=True)
class InputColumn:
    """A column of an input file: its name, and its number among the columns of that name."""

    name: str
    occurrence: int = 0
    is_read: bool = False
    """Whether the run reads it; then `name` is that of `ColumnNeed.in_input`, and a source may have a different one."""


@dataclass(frozen=True, kw_only=True)
class Survey(TaskResult):
    """The result of the first pass over one partition."""

    columns: Mapping[InputColumn, pa.DataType]
    """The exported type of each column, for this partition alone."""
    repeated: frozenset[str]
    """The annotation columns whose values are those of the input column with the same FineWeb name."""
    source_name: str | None
    """The source of the partition."""


@dataclass(frozen=True)
class SurveyStage:
    """Surveys partitions."""

    store: Store
    needs: Mapping[str, ColumnNeed]
    """The input columns that the run reads, by FineWeb name."""
    annotations: Mapping[str, Output]
    """The output that has each annotation column."""

    @property
    def name(self) -> str:
        """The stage's name in progress and summaries."""
        return "survey"

    def start(self) -> SurveyWorker:
        """A worker; it has nothing to load."""
        return SurveyWorker(self)


class SurveyWorker:
    """Surveys partitions."""

    def __init__(self, stage: SurveyStage) -> None:
        self._stage = stage

    def work(self, task: Task) -> Survey:
        """The columns of one partition."""
        partition = task.partition
        schema = schema_of(partition)
        found = _columns(schema) if schema is not None else _keys(partition)
        values = _Values(self._stage, task, found)
        values.read()
        columns = {c: values.types.get(c, export_type(kind)) for c, kind in found.items()}
        return Survey(
            records=(),
            documents=values.rows,
            text_bytes=0,
            columns=columns,
            repeated=frozenset(values.repeated),
            source_name=partition.source_name,
        )


def _columns(schema: pa.Schema) -> dict[InputColumn, pa.DataType]:
    found: dict[InputColumn, pa.DataType] = {}
    for name, field in zip(clean_names(schema.names), schema, strict=True):
        occurrence = sum(column.name == name for column in found)
        found[InputColumn(name, occurrence)] = field.type
    return found


class _Values:
    """The columns of a partition whose values decide."""

    def __init__(self, stage: SurveyStage, task: Task, found: Mapping[InputColumn, pa.DataType]) -> None:
        self._stage, self._task = stage, task
        own = {column.name for column in found}
        self._calendars = {f"column {n}": c for n, (c, kind) in enumerate(found.items()) if is_calendar(kind)}
        self._compared = {n: o for n, o in stage.annotations.items() if n in stage.needs or n in own}
        self.types: dict[InputColumn, pa.DataType] = {}
        self.repeated = set(self._compared)
        self.rows = 0

    def read(self) -> None:
        """Read these columns, if there are any."""
        needs = [
            *(self._stage.needs.get(n, ColumnNeed(n, n, required=False, occurrence=0)) for n in self._compared),
            *(ColumnNeed(k, c.name, required=False, occurrence=c.occurrence) for k, c in self._calendars.items()),
        ]
        if not needs:
            return
        with ExitStack() as stack:
            wanted = {output: self._task.upstream[output] for output in self._compared.values()}
            files = {output: AnnotationRows(self._stage.store, record, stack) for output, record in wanted.items()}
            for batch in PartitionReader(self._task.partition, needs, stage="export", has_content=False):
                self.rows += batch.num_rows
                self._look(batch, {output: file.take(batch.num_rows) for output, file in files.items()})

    def _look(self, batch: pa.RecordBatch, annotations: Mapping[Output, pa.RecordBatch]) -> None:
        for name in sorted(self.repeated):
            annotated = annotations[self._compared[name]].column(name)
            if not _are_equal(batch.column(name), annotated):
                self.repeated.discard(name)
        for key, column in self._calendars.items():
            if not in_python_years(batch.column(key)):
                self.types[column] = pa.string()


def _are_equal(array: pa.Array, annotated: pa.Array) -> bool:
    wanted = export_type(annotated.type)
    try:
        return bool(exported(array, wanted).equals(exported(annotated, wanted)))
    except pa.ArrowException:  # such as text that is no number
        return False


def _keys(partition: Partition) -> dict[InputColumn, pa.DataType]:
    """The keys of all documents, in the order in which they occur first, with types that hold all their values."""
    if partition.format == "warc":
        return {InputColumn(name): pa.string() for name in WARC_COLUMNS}
    kinds: dict[str, set[type]] = {}
    limit = line_limit(partition.max_document_bytes)
    with input_errors(), open_blocks(partition.url, partition.piece, limit=limit) as blocks:
        contents = (content for _, content in blocks if isinstance(content, bytes | bytearray))
        for row in (row for content in contents for row in _objects(lines_of(content))):
            if isinstance(row.get(partition.text), str | None):
                for key, value in row.items():
                    kinds.setdefault(key, set()).add(_kind_of(value))
            if len(kinds) > _MOST_KEYS:
                raise InputError(f"has more than {_MOST_KEYS:,} different keys, which cannot be columns")
    return {InputColumn(key): _type_of(found - {type(None)}) for key, found in kinds.items() if _is_name(key)}


def _is_name(key: str) -> bool:
    """Whether a key can be the name of a column; half of a surrogate pair cannot."""
    return key.isascii() or key.encode(errors="replace").decode() == key


def _objects(lines: Iterable[Line]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            row = orjson.loads(line)
        except ValueError:
            row = _unusual(line)
        if isinstance(row, dict):
            yield row


def _unusual(line: Line) -> Any:
    """A line that orjson refuses, such as one with NaN or after a byte order mark; None if it is not JSON."""
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _kind_of(value: Any) -> type:
    return str if type(value) is int and not _INT64[0] <= value <= _INT64[1] else type(value)


def _type_of(found: set[type]) -> pa.DataType:
    """A type for all values of a key: strings hold any, lists and objects as JSON."""
    if not found:
        return pa.null()
    if found == {bool}:
        return pa.bool_()
    if found == {int}:
        return pa.int64()
    return pa.float64() if found <= {int, float} else pa.string()
