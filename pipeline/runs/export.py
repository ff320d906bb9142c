"""`colophon export`: the input with its annotations beside it, as FineWeb-style Parquet for publishing."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.errors import InputError, UsageError
from colophon.pipeline.inputs.columns import FINEWEB_TYPES, ColumnNeed
from colophon.pipeline.inputs.partitions import Partition
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.retry import is_transient
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.stages.tasks import Task, TaskResult
from colophon.pipeline.storage.commits import Store
from colophon.shards.common.durable import sync
from colophon.shards.manifest import MANIFEST_NAME, Manifest


def export_tasks(plan: Plan) -> list[Task]:
    """A task for each partition that the run did not quarantine, with the annotation files to join.

    Raises:
        UsageError: the recipe has no annotators, or a partition's annotations are not up to date.
    """
    outputs = plan.outputs("annotate")
    if not outputs:
        raise UsageError(f"{plan.prepared.where}: nothing to export: the recipe has no [annotators.*]")
    tasks = []
    left_out = _quarantined(plan.prepared.store)
    for partition in plan.prepared.inputs.partitions:
        if partition.name in left_out:
            continue
        records = {output: plan.record(output, partition) for output in outputs}
        missing = [output for output, record in records.items() if record is None]
        if missing:
            raise UsageError(f"export: {missing[0]} of {partition.name} is not up to date: run `colophon annotate`")
        upstream = {output: record for output, record in records.items() if record is not None}
        tasks.append(Task(partition=partition, outputs={}, upstream=upstream))
    return tasks


def _quarantined(store: Store) -> set[str | None]:
    """The partitions that the last run could not read."""
    text = store.read_text(MANIFEST_NAME)
    return set() if text is None else {e.partition for e in Manifest.model_validate_json(text).quarantine if not e.line}


@dataclass(frozen=True)
class ExportStage:
    """Joins input and annotations into one Parquet file for each partition."""

    store: Store
    directory: Path
    columns: Mapping[str, str]
    """The input's own names by FineWeb's, from the recipe."""

    @property
    def title(self) -> str:
        """For progress and summaries."""
        return "export"

    def start(self) -> ExportWorker:
        """Nothing to load."""
        return ExportWorker(self)


class ExportWorker:
    """Writes joined files."""

    def __init__(self, stage: ExportStage) -> None:
        self._stage = stage

    def work(self, task: Task) -> TaskResult:
        """Join one partition. The file is renamed into place when it is whole."""
        frame = pl.from_arrow(self._input(task.partition))
        assert isinstance(frame, pl.DataFrame)
        for stage, record in task.upstream.items():
            with self._stage.store.local(record.path) as path:
                annotations = pl.read_parquet(path, glob=False)
            if annotations.height != frame.height:
                raise InputError(f"{stage} has {annotations.height} rows, the input {frame.height}")
            frame = pl.concat([frame, _beside(annotations, frame)], how="horizontal")
        self._write(frame, self._stage.directory / f"{task.partition.name}.parquet")
        return TaskResult(records=(), documents=frame.height, text_bytes=int(frame["text"].str.len_bytes().sum() or 0))

    def _input(self, partition: Partition) -> pa.Table:
        """All columns of the partition; of a file that is not Parquet, those that FineWeb has."""
        renamed = {own: name for name, own in self._stage.columns.items()}
        if partition.format == "parquet" and partition.row_groups is not None:
            try:
                with fsspec.open(partition.url, "rb") as handle:
                    parquet = pq.ParquetFile(handle, page_checksum_verification=True)
                    table = parquet.read_row_groups(list(range(*partition.row_groups)))
            except (pa.ArrowException, OSError) as error:
                if is_transient(error):
                    raise
                raise InputError(str(error).splitlines()[0]) from error
            return table.rename_columns([renamed.get(name, name) for name in table.column_names])
        needs = [ColumnNeed(name, self._stage.columns.get(name, name), required=False) for name in FINEWEB_TYPES]
        return pa.Table.from_batches(list(PartitionReader(partition, needs, stage="export")))

    def _write(self, frame: pl.DataFrame, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            frame.write_parquet(temporary, compression="zstd")
            sync(temporary)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)


def _beside(annotations: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """The annotation columns under names that the input does not use; one that repeats an input column is left out."""
    repeated = [n for n in annotations.columns if n in frame.columns and annotations[n].equals(frame[n])]
    kept = annotations.drop(repeated)
    return kept.rename({name: f"{name}_annotated" for name in kept.columns if name in frame.columns})
