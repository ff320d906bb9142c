"""`colophon export`: the input and its annotations in one Parquet file per partition, for publishing.

The input is read as a run reads it, so that rows, ids and repaired texts are those of the tokens. Files are written row
group by row group: memory does not depend on the size of a partition.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.errors import InputError, UsageError
from colophon.pipeline.export.annotations import AnnotationRows
from colophon.pipeline.export.column_types import exported
from colophon.pipeline.export.schema import ExportSchema
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.stages.tasks import Task, TaskResult
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.run_files import disk_full_as_store_error
from colophon.shards.common.durable import replaced_file
from colophon.shards.common.output_paths import inside
from colophon.shards.outputs import Output

_ROW_GROUP_BYTES = 64 << 20
_ROW_GROUP_ROWS = 1 << 16


def export_tasks(plan: Plan) -> list[Task]:
    """A task for each partition that the last run did not quarantine, with the annotation files to join.

    Raises:
        UsageError: the recipe has no annotators, or a partition's annotations are not up to date.
        ShardError: the manifest of the last run is damaged.
    """
    outputs = plan.outputs("annotate")
    if not outputs:
        raise UsageError(f"{plan.resolved.where}: nothing to export: the recipe has no [annotators.*]")
    manifest = plan.resolved.manifest()
    quarantined = {e.partition for e in manifest.quarantine if e.line is None} if manifest is not None else set()
    numbers = np.flatnonzero(plan.is_kept([name for name in quarantined if name is not None]))
    partitions = plan.resolved.inputs.partitions.chosen(numbers)
    records = {output: plan.state(output).chosen(numbers) for output in outputs}
    tasks = []
    for row, partition in enumerate(partitions):
        upstream = {output: record for output, found in records.items() if (record := found[row]) is not None}
        if missing := [output for output in outputs if output not in upstream]:
            raise UsageError(f"export: {missing[0]} of {partition.name} is not up to date: run `colophon annotate`")
        tasks.append(Task(partition=partition, outputs={}, upstream=upstream))
    return tasks


def file_name(partition: str) -> str:
    """The name of a partition's file."""
    return f"{partition}.parquet"


@dataclass(frozen=True)
class ExportStage:
    """Joins input and annotations into one Parquet file for each partition."""

    store: Store
    directory: Path
    schema: ExportSchema
    metadata: dict[str, str]
    """Kept in every file."""

    @property
    def name(self) -> str:
        """The stage's name in progress and summaries."""
        return "export"

    def start(self) -> ExportWorker:
        """A worker; it has nothing to load."""
        return ExportWorker(self)


class ExportWorker:
    """Writes joined files."""

    def __init__(self, stage: ExportStage) -> None:
        self._stage = stage
        self._schema = stage.schema.arrow(stage.metadata)

    def work(self, task: Task) -> TaskResult:
        """Join one partition. The file appears when it is complete."""
        path = inside(self._stage.directory, file_name(task.partition.name))
        needs = self._stage.schema.needs(task.partition)
        reader = PartitionReader(task.partition, needs, stage="export", has_content=False)
        rows = 0
        with disk_full_as_store_error(str(path)), replaced_file(path) as temporary, ExitStack() as stack:
            annotations = {o: AnnotationRows(self._stage.store, r, stack) for o, r in task.upstream.items()}
            with _RowGroups(temporary, self._schema) as file:
                for batch in reader:
                    taken = {output: each.take(batch.num_rows) for output, each in annotations.items()}
                    file.add(self._joined(batch, taken))
                    rows += batch.num_rows
            for output, each in annotations.items():
                if each.rows != rows:
                    raise InputError(f"{output} has {each.rows} rows; the input has {rows}")
        return TaskResult(records=(), documents=rows, text_bytes=reader.text_bytes)

    def _joined(self, batch: pa.RecordBatch, annotations: Mapping[Output, pa.RecordBatch]) -> pa.RecordBatch:
        schema, read = self._stage.schema, dict(zip(batch.schema.names, batch.columns, strict=True))
        nulls = pa.nulls(batch.num_rows)
        arrays = [exported(read.get(column.need.name, nulls), column.type) for column in schema.inputs]
        arrays += [exported(annotations[c.output].column(c.column), c.type) for c in schema.annotations]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


class _RowGroups:
    """A Parquet file while it is written, in row groups of up to 64 MiB or 65,536 rows."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)
        self._buffered: list[pa.RecordBatch] = []
        self._bytes = self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Buffer a batch, and write the row group when it is full."""
        self._buffered.append(batch)
        self._bytes += batch.nbytes
        self._rows += batch.num_rows
        if self._bytes >= _ROW_GROUP_BYTES or self._rows >= _ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._buffered, self._schema)
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self._buffered, self._bytes, self._rows = [], 0, 0

    def __enter__(self) -> _RowGroups:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._buffered:
            self._flush()
        self._writer.close()
