"""annotate: run every annotator whose output is not up to date over each batch of the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.annotators.base import INPUT_IDS, Annotator, AnnotatorError, explained
from colophon.annotators.plugin_files import ImportsPlugins, PluginFile
from colophon.pipeline.concurrency import WriteBehind
from colophon.pipeline.errors import InputError, NodeError, one_line
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.stages.column_sources import input_columns
from colophon.pipeline.stages.tasks import Task
from colophon.pipeline.stages.timing import Clock
from colophon.pipeline.storage.commits import Draft, Store
from colophon.pipeline.storage.publication import Finished
from colophon.pipeline.storage.run_files import damage_as_error
from colophon.shards.annotations import ID
from colophon.shards.common.errors import ColophonError
from colophon.shards.outputs import Output
from colophon.shards.records import QuarantineEntry

if TYPE_CHECKING:  # it loads the annotators that rewrite texts by a function of this module
    from colophon.pipeline.stages.token_ids import TokenSource
from colophon.shards.stores.retry import is_transient

ROW_GROUP_ROWS = 1 << 16
_ROW_GROUP_BYTES = 64 << 20
"""A row group has fewer rows if they have more bytes in memory: long URLs."""


@dataclass(frozen=True)
class AnnotateStage(ImportsPlugins):
    """The annotators of a recipe, each after those whose columns it reads."""

    store: Store
    annotators: tuple[Annotator, ...]
    needs: tuple[ColumnNeed, ...]
    """The input columns that the annotators read, and the ids."""
    plugins: tuple[PluginFile, ...] = ()
    """The files that define some of the annotators."""

    @property
    def name(self) -> str:
        """The stage's name in progress and summaries."""
        return "annotate"

    def start(self) -> AnnotateWorker:
        """A worker; models are loaded when a task first needs them."""
        return AnnotateWorker(self)


class AnnotateWorker:
    """Holds the annotators of one process."""

    def __init__(self, stage: AnnotateStage) -> None:
        self._stage = stage
        self._loaded: set[str] = set()

    def open(self, task: Task, *, tokens: TokenSource, clock: Clock, stack: ExitStack) -> AnnotationSink | None:
        """Load the annotators of the task's outputs and begin a file for each; None if there are none."""
        wanted = [a for a in self._stage.annotators if Output.annotations(a.name) in task.outputs]
        if not wanted:
            return None
        with clock.measure("load"):
            self._load(wanted)
        return AnnotationSink(self._stage, task, wanted, stack=stack)

    def _load(self, annotators: Sequence[Annotator]) -> None:
        for annotator in annotators:
            if annotator.name not in self._loaded:
                load_annotator(annotator)
                self._loaded.add(annotator.name)


def load_annotator(annotator: Annotator) -> None:
    """Load an annotator's models in this process.

    Raises:
        NodeError: this machine cannot load them.
        ColophonError: the annotator's own code failed, or a transient error of a file, as it is.
    """
    try:
        annotator.load()
    except (AnnotatorError, ImportError, OSError) as error:
        if is_transient(error):
            raise
        reason = str(error) if isinstance(error, AnnotatorError) else f"annotators.{annotator.name}: {one_line(error)}"
        raise NodeError(reason) from error
    except ColophonError:
        raise
    except Exception as error:
        raise ColophonError(explained(error, by=annotator, name=annotator.name)) from error


class AnnotationSink:
    """Runs annotators over a partition's batches and writes one file for each."""

    notes: tuple[str, ...] = ()

    def __init__(self, stage: AnnotateStage, task: Task, wanted: Sequence[Annotator], *, stack: ExitStack) -> None:
        self._stage, self._task, self._wanted = stage, task, wanted
        self._read = {ID, *(column for annotator in wanted for column in input_columns(annotator))}
        self.reads_ids = any(INPUT_IDS in annotator.columns for annotator in wanted)
        self._stored = self._stored_columns(stack)
        self._files = {a.name: stack.enter_context(self._file(a)) for a in wanted}

    @property
    def needs(self) -> Sequence[ColumnNeed]:
        """The input columns that the annotators read, and the ids."""
        return [need for need in self._stage.needs if need.name in self._read]

    def take(self, batch: pa.RecordBatch, *, first_row: int, clock: Clock, later: WriteBehind) -> None:
        """Run all annotators over a batch."""
        columns, ids = dict(zip(batch.schema.names, batch.columns, strict=True)), batch.column(ID)
        columns |= {name: column.slice(first_row, batch.num_rows) for name, column in self._stored.items()}
        for annotator in self._wanted:
            with clock.measure("annotate"):
                output = annotate_batch(annotator, columns, num_rows=batch.num_rows)
            later(partial(clock.call, "write", self._files[annotator.name].add, with_ids(ids, output)))
            # A name of the input wins: `url` stays the input's column for the annotators that follow.
            columns = dict(zip(output.schema.names, output.columns, strict=True)) | columns

    def finish(self, reader: PartitionReader, *, rows: int) -> tuple[Finished, ...]:
        """One file for each annotator."""
        from_input = {need.name for need in self._stage.needs}
        read = reader.content
        return tuple(
            self._files[a.name].finish(
                self._task.outputs[Output.annotations(a.name)],
                rows=rows,
                problems=reader.problems,
                counts=reader.counts(input_columns(a)),
                content={name: read[name] for name in (ID, *input_columns(a)) if name in from_input},
            )
            for a in self._wanted
        )

    def _stored_columns(self, stack: ExitStack) -> dict[str, pa.Array]:
        """The columns that the wanted annotators read of annotators whose files are up to date."""
        found: dict[str, pa.Array] = {}
        for annotator in self._stage.annotators:
            record = self._task.upstream.get(Output.annotations(annotator.name))
            names = [name for name in annotator.schema.names if name in self._read]
            if annotator in self._wanted or record is None or not names:
                continue
            path = stack.enter_context(self._stage.store.files.local_copy(record.path))
            with (
                damage_as_error(f"{self._stage.store.root}/{record.path}"),
                pq.ParquetFile(path, page_checksum_verification=True) as parquet,
            ):
                table = parquet.read(columns=names, use_threads=False)
            found |= {name: table.column(name).combine_chunks() for name in table.column_names}
        return found

    @contextmanager
    def _file(self, annotator: Annotator) -> Iterator[AnnotationFile]:
        output, partition = Output.annotations(annotator.name), self._task.partition.name
        with (
            self._stage.store.draft(output=output, partition=partition, suffix=output.suffix) as draft,
            AnnotationFile(draft, annotator.schema) as file,
        ):
            yield file


class AnnotationFile:
    """An annotator's Parquet file while it is written, in row groups of `ROW_GROUP_ROWS` for any size of batches.

    The ids of documents are its first column; random ones take about 20 bytes each.
    Of long values a row group has fewer rows: no more than about 64 MiB and a batch are held in memory.
    """

    def __init__(self, draft: Draft, schema: pa.Schema) -> None:
        self._draft = draft
        self._schema = _file_schema(schema)
        self._writer = pq.ParquetWriter(draft.path, self._schema, compression="zstd", write_page_checksum=True)
        self._buffered: list[pa.RecordBatch] = []
        self._rows_buffered = self._bytes_buffered = 0
        self._nulls = dict.fromkeys(schema.names, 0)

    def add(self, batch: pa.RecordBatch) -> None:
        """Buffer a batch and write the row groups that are full."""
        for name in self._nulls:
            self._nulls[name] += batch.column(name).null_count
        self._buffered.append(batch)
        self._rows_buffered += batch.num_rows
        self._bytes_buffered += batch.nbytes
        while self._rows_buffered >= ROW_GROUP_ROWS:
            table = pa.Table.from_batches(self._buffered, self._schema)
            self._writer.write_table(table.slice(0, ROW_GROUP_ROWS), row_group_size=ROW_GROUP_ROWS)
            self._buffered = table.slice(ROW_GROUP_ROWS).to_batches()
            self._rows_buffered -= ROW_GROUP_ROWS
            self._bytes_buffered = sum(rest.nbytes for rest in self._buffered)
        if self._bytes_buffered >= _ROW_GROUP_BYTES:
            self._write_buffered()

    def _write_buffered(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._buffered, self._schema), row_group_size=ROW_GROUP_ROWS)
        self._buffered, self._rows_buffered, self._bytes_buffered = [], 0, 0

    def finish(
        self,
        fingerprint: str,
        *,
        rows: int,
        problems: Sequence[QuarantineEntry],
        counts: Mapping[str, int],
        content: Mapping[str, str],
    ) -> Finished:
        """Write the buffered rows, close the file and check it."""
        if self._rows_buffered or not rows:
            self._write_buffered()
        self._writer.close()
        return self._draft.finish(
            check=lambda path: _check_rows(path, rows),
            rows=rows,
            fingerprint=fingerprint,
            counts={**{f"{name}_null": nulls for name, nulls in self._nulls.items()}, **counts},
            problems=problems,
            content=content,
        )

    def __enter__(self) -> AnnotationFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def _file_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of an annotator's files: ids, and its columns."""
    return pa.schema([pa.field(ID, pa.string()), *schema], metadata=schema.metadata)


def with_ids(ids: pa.Array, batch: pa.RecordBatch) -> pa.RecordBatch:
    """An annotator's output as its file has it: with the documents' ids as the first column."""
    return pa.RecordBatch.from_arrays([ids, *batch.columns], schema=_file_schema(batch.schema))


def annotate_batch(annotator: Annotator, columns: dict[str, pa.Array], *, num_rows: int) -> pa.RecordBatch:
    """The annotator's output for a batch given as columns. Checks that rows and schema are as the contract promises.

    Raises:
        InputError: the annotator broke its contract: it raised an error, or its file would not be row-aligned.
    """
    batch = pa.RecordBatch.from_pydict({name: columns[name] for name in annotator.columns})
    output = _annotated(annotator, batch)
    if output.num_rows != num_rows or not output.schema.equals(annotator.schema):
        raise InputError(
            f"annotator {annotator.name} broke its contract: {output.num_rows} rows of {output.schema}; "
            f"expected {num_rows} rows of {annotator.schema}"
        )
    return output


def _annotated(annotator: Annotator, batch: pa.RecordBatch) -> pa.RecordBatch:
    try:
        output = annotator.annotate(batch)
    except (ColophonError, MemoryError):
        raise
    except Exception as error:
        if is_transient(error):
            raise
        raise InputError(explained(error, by=annotator, name=annotator.name)) from error
    if not isinstance(output, pa.RecordBatch):
        kind = type(output).__name__
        raise InputError(f"annotator {annotator.name} broke its contract: it returned a {kind}; expected a RecordBatch")
    return output


def _check_rows(path: Path, rows: int) -> None:
    found = pq.read_metadata(path).num_rows
    if found != rows:
        raise InputError(f"{path} has {found} rows; expected {rows}")
