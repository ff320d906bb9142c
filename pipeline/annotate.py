"""annotate: one pass over the text and URL columns runs every annotator whose output is not up to date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from annotators.base import Annotator
from pipeline.errors import InputError
from pipeline.flow import Clock, WriteBehind, read_ahead
from pipeline.inputs import ColumnNeed
from pipeline.readers import PartitionReader
from pipeline.store import Draft, Store
from pipeline.work import Task, TaskResult
from shards.manifest import QuarantineEntry, Record

SUFFIX = ".parquet"
ROW_GROUP_ROWS = 1 << 16


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
        """Annotate one partition: read, annotate and write batch by batch, commit one file for each annotator."""
        clock = Clock()
        wanted = [a for a in self._stage.annotators if stage_of(a.name) in task.outputs]
        with clock.measure("load"):
            self._load(wanted)
        reader = self._reader(task, wanted)
        with ExitStack() as stack:
            files = {a.name: stack.enter_context(self._file(task, a)) for a in wanted}
            documents, text_bytes = self._annotate(task, wanted, reader, files=files, clock=clock)
            with clock.measure("write"):
                records = tuple(
                    files[a.name].commit(task.outputs[stage_of(a.name)], rows=documents, problems=reader.problems)
                    for a in wanted
                )
        return TaskResult(records=records, documents=documents, text_bytes=text_bytes, seconds=clock.seconds)

    def _annotate(
        self,
        task: Task,
        wanted: Sequence[Annotator],
        reader: PartitionReader,
        *,
        files: Mapping[str, AnnotationFile],
        clock: Clock,
    ) -> tuple[int, int]:
        """Run the annotators over all batches; the number of documents and the bytes of their texts."""
        documents = text_bytes = 0
        with (
            ExitStack() as stack,
            closing(read_ahead(clock.each("read", reader))) as batches,
            WriteBehind() as later,
        ):
            earlier = self._earlier(task, wanted, stack)
            for batch in batches:
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                columns |= {name: column.slice(documents, batch.num_rows) for name, column in earlier.items()}
                for annotator in wanted:
                    with clock.measure("work"):
                        output = annotate_batch(annotator, columns, num_rows=batch.num_rows)
                    later(partial(clock.call, "write", files[annotator.name].add, output))
                    # What the input calls by this name stays the input's (`url` is both).
                    columns = dict(zip(output.schema.names, output.columns, strict=True)) | columns
                documents += batch.num_rows
                text_bytes += _text_bytes(batch)
        return documents, text_bytes

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
            with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
                names = [name for name in annotator.schema.names if name in columns]
                table = parquet.read(columns=names, use_threads=False)
            found |= {name: table.column(name).combine_chunks() for name in table.column_names}
        return found

    @contextmanager
    def _file(self, task: Task, annotator: Annotator) -> Iterator[AnnotationFile]:
        stage = stage_of(annotator.name)
        with (
            self._stage.store.draft(stage=stage, partition=task.partition.name, suffix=SUFFIX) as draft,
            AnnotationFile(draft, annotator.schema) as file,
        ):
            yield file


class AnnotationFile:
    """One annotator's Parquet file as it grows, in row groups of `ROW_GROUP_ROWS` whatever the batches were."""

    def __init__(self, draft: Draft, schema: pa.Schema) -> None:
        self._draft = draft
        self._schema = schema
        self._writer = pq.ParquetWriter(draft.path, schema, compression="zstd", write_page_checksum=True)
        self._waiting: list[pa.RecordBatch] = []
        self._rows_waiting = 0
        self._nulls = dict.fromkeys(schema.names, 0)

    def add(self, batch: pa.RecordBatch) -> None:
        """Take a batch; full row groups are written."""
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            self._nulls[name] += column.null_count
        self._waiting.append(batch)
        self._rows_waiting += batch.num_rows
        while self._rows_waiting >= ROW_GROUP_ROWS:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._writer.write_table(table.slice(0, ROW_GROUP_ROWS), row_group_size=ROW_GROUP_ROWS)
            self._waiting = table.slice(ROW_GROUP_ROWS).to_batches()
            self._rows_waiting -= ROW_GROUP_ROWS

    def commit(self, fingerprint: str, *, rows: int, problems: Sequence[QuarantineEntry]) -> Record:
        """Write what waits, close the file and make it visible."""
        if self._rows_waiting or not rows:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema), row_group_size=ROW_GROUP_ROWS)
        self._writer.close()
        return self._draft.commit(
            check=lambda path: _check_rows(path, rows),
            rows=rows,
            fingerprint=fingerprint,
            counts={f"{name}_null": nulls for name, nulls in self._nulls.items()},
            problems=problems,
        )

    def __enter__(self) -> AnnotationFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


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
