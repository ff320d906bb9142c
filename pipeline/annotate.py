"""annotate: one pass over the text and URL columns runs every annotator whose output is not up to date."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from annotators.base import Annotator
from pipeline.errors import InputError
from pipeline.inputs import ColumnNeed
from pipeline.readers import PartitionReader
from pipeline.store import Store
from pipeline.work import Task, TaskResult
from shards.manifest import Record

SUFFIX = ".parquet"


def stage_of(annotator: str) -> str:
    """The stage, and so the directory, of an annotator's files."""
    return f"annotations/{annotator}"


@dataclass(frozen=True)
class AnnotateStage:
    """All annotators of a recipe, in an order in which each comes after those whose columns it reads."""

    store: Store
    annotators: tuple[Annotator, ...]
    needs: tuple[ColumnNeed, ...]
    """The input columns that the annotators read."""

    @property
    def title(self) -> str:
        """For progress and summaries."""
        return "annotate"

    def start(self) -> AnnotateWorker:
        """A worker; models are loaded when a task first needs them."""
        return AnnotateWorker(self)


class AnnotateWorker:
    """Runs annotators over partitions."""

    def __init__(self, stage: AnnotateStage) -> None:
        self._stage = stage
        self._loaded: set[str] = set()

    def work(self, task: Task) -> TaskResult:
        """Annotate one partition: read, annotate batch by batch, commit one file for each annotator."""
        wanted = [a for a in self._stage.annotators if stage_of(a.name) in task.outputs]
        self._load(wanted)
        reader = self._reader(task, wanted)
        done: dict[str, list[pa.RecordBatch]] = {a.name: [] for a in wanted}
        documents = text_bytes = 0
        with ExitStack() as stack:
            earlier = self._earlier(task, wanted, stack)
            for batch in reader:
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                columns |= {name: column.slice(documents, batch.num_rows) for name, column in earlier.items()}
                for annotator in wanted:
                    output = annotate_batch(annotator, columns, num_rows=batch.num_rows)
                    done[annotator.name].append(output)
                    # What the input calls by this name stays the input's (`url` is both).
                    columns = dict(zip(output.schema.names, output.columns, strict=True)) | columns
                documents += batch.num_rows
                text_bytes += _text_bytes(batch)
        records = tuple(self._commit(task, a, done[a.name], rows=documents, reader=reader) for a in wanted)
        return TaskResult(records=records, documents=documents, text_bytes=text_bytes)

    def _load(self, annotators: Sequence[Annotator]) -> None:
        for annotator in annotators:
            if annotator.name not in self._loaded:
                annotator.load()
                self._loaded.add(annotator.name)

    def _reader(self, task: Task, wanted: Sequence[Annotator]) -> PartitionReader:
        columns = {column for annotator in wanted for column in annotator.columns}
        needs = [need for need in self._stage.needs if need.name in columns]
        return PartitionReader(task.partition, needs or self._stage.needs[:1], stage="annotate")

    def _earlier(self, task: Task, wanted: Sequence[Annotator], stack: ExitStack) -> dict[str, pa.Array]:
        """Columns of annotators that are up to date and that a wanted one reads."""
        columns = {column for annotator in wanted for column in annotator.columns}
        found: dict[str, pa.Array] = {}
        for annotator in self._stage.annotators:
            record = task.upstream.get(stage_of(annotator.name))
            if annotator in wanted or record is None or not columns.intersection(annotator.schema.names):
                continue
            path = stack.enter_context(self._stage.store.local(record.path))
            table = pq.read_table(path, columns=[n for n in annotator.schema.names if n in columns])
            found |= {name: table.column(name).combine_chunks() for name in table.column_names}
        return found

    def _commit(
        self, task: Task, annotator: Annotator, batches: list[pa.RecordBatch], *, rows: int, reader: PartitionReader
    ) -> Record:
        table = pa.Table.from_batches(batches, annotator.schema)
        return self._stage.store.commit(
            stage=stage_of(annotator.name),
            partition=task.partition.name,
            suffix=SUFFIX,
            write=lambda path: pq.write_table(table, path, compression="zstd", write_page_checksum=True),
            check=lambda path: _check_rows(path, rows),
            rows=rows,
            fingerprint=task.outputs[stage_of(annotator.name)],
            counts={f"{name}_null": table.column(name).null_count for name in table.column_names},
            problems=reader.problems,
        )


def annotate_batch(annotator: Annotator, columns: dict[str, pa.Array], *, num_rows: int) -> pa.RecordBatch:
    """The annotator's output for a batch given as columns, with the contract's promises checked.

    Raises:
        InputError: the annotator broke its contract; its file would not be row-aligned.
    """
    batch = pa.RecordBatch.from_pydict({name: columns[name] for name in annotator.columns})
    output = annotator.annotate(batch)
    if output.num_rows != num_rows or not output.schema.equals(annotator.schema):
        raise InputError(f"annotator {annotator.name}: {output.num_rows} rows of {output.schema} for {num_rows} rows")
    return output


def _text_bytes(batch: pa.RecordBatch) -> int:
    if "text" not in batch.schema.names:
        return 0
    return pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0


def _check_rows(path: Path, rows: int) -> None:
    found = pq.read_metadata(path).num_rows
    if found != rows:
        raise InputError(f"{path}: {found} rows written of {rows}")
