"""`colophon export`: the input and its annotations in one FineWeb-style Parquet file per partition, for publishing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.errors import InputError, UsageError, one_line
from colophon.pipeline.inputs.columns import FINEWEB_TYPES, ColumnNeed
from colophon.pipeline.inputs.partitions import Partition
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.retry import is_transient
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.stages.tasks import Task, TaskResult
from colophon.pipeline.storage.commits import Store
from colophon.shards.common.durable import replaced_file


def export_tasks(plan: Plan) -> list[Task]:
    """A task for each partition that the last run did not quarantine, with the annotation files to join.

    Raises:
        UsageError: the recipe has no annotators, or a partition's annotations are not up to date.
        ShardError: the manifest of the last run is damaged.
    """
    outputs = plan.outputs("annotate")
    if not outputs:
        raise UsageError(f"{plan.resolved.where}: nothing to export: the recipe has no [annotators.*]")
    tasks = []
    manifest = plan.resolved.manifest()
    quarantined = {e.partition for e in manifest.quarantine if e.line is None} if manifest is not None else set()
    for partition in plan.resolved.inputs.partitions:
        if partition.name in quarantined:
            continue
        records = {output: plan.record(output, partition) for output in outputs}
        missing = [output for output, record in records.items() if record is None]
        if missing:
            raise UsageError(f"export: {missing[0]} of {partition.name} is not up to date: run `colophon annotate`")
        upstream = {output: record for output, record in records.items() if record is not None}
        tasks.append(Task(partition=partition, outputs={}, upstream=upstream))
    return tasks


@dataclass(frozen=True)
class ExportStage:
    """Joins input and annotations into one Parquet file for each partition."""

    store: Store
    directory: Path
    columns: Mapping[str, str]
    """The input's own name of a column by its FineWeb name, where they differ."""

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

    def work(self, task: Task) -> TaskResult:
        """Join one partition. The file appears when it is complete."""
        frame = pl.from_arrow(self._input(task.partition))
        assert isinstance(frame, pl.DataFrame)
        for output, record in task.upstream.items():
            with self._stage.store.files.local_copy(record.path) as path:
                annotations = pl.read_parquet(path, glob=False)
            if annotations.height != frame.height:
                raise InputError(f"{output} has {annotations.height} rows; the input has {frame.height}")
            frame = pl.concat([frame, _renamed(annotations, frame)], how="horizontal")
        with replaced_file(self._stage.directory / f"{task.partition.name}.parquet") as temporary:
            frame.write_parquet(temporary, compression="zstd")
        return TaskResult(records=(), documents=frame.height, text_bytes=int(frame["text"].str.len_bytes().sum() or 0))

    def _input(self, partition: Partition) -> pa.Table:
        """All columns of the partition; only those that FineWeb has if the file is not Parquet."""
        renamed = {own: name for name, own in self._stage.columns.items()}
        if partition.format == "parquet" and partition.row_groups is not None:
            try:
                with fsspec.open(partition.url, "rb") as handle:
                    parquet = pq.ParquetFile(handle, page_checksum_verification=True)
                    table = parquet.read_row_groups(list(range(*partition.row_groups)))
            except (pa.ArrowException, OSError) as error:
                if is_transient(error):
                    raise
                raise InputError(one_line(error)) from error
            return table.rename_columns([renamed.get(name, name) for name in table.column_names])
        needs = [ColumnNeed(name, self._stage.columns.get(name, name), required=False) for name in FINEWEB_TYPES]
        return pa.Table.from_batches(list(PartitionReader(partition, needs, stage="export")))


def _renamed(annotations: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """The annotation columns that do not repeat an input column; `x` becomes `x_annotated` if the input has an `x`."""
    repeated = [n for n in annotations.columns if n in frame.columns and annotations[n].equals(frame[n])]
    kept = annotations.drop(repeated)
    return kept.rename({name: f"{name}_annotated" for name in kept.columns if name in frame.columns})
