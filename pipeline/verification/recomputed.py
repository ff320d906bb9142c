"""`colophon verify --deep`: every file computed again from what it is made from, and compared.

Annotations and tokens are computed from the input, by the stages of a run, into a scratch directory; packed files are
packed from the run's tokens and annotations. The work is a stage over partitions, so any executor can do it. What is
equal byte by byte is equal; else the rows are compared, since a different pyarrow writes the same rows as other bytes.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from colophon.pipeline.errors import InputError, one_line
from colophon.pipeline.scratch import scratch_directory
from colophon.pipeline.stages.annotation import AnnotateStage
from colophon.pipeline.stages.input_pass import InputPass, InputPassWorker
from colophon.pipeline.stages.packing import LayoutFile, PackStage
from colophon.pipeline.stages.tasks import Task, TaskResult
from colophon.pipeline.stages.token_ids import TokenEncoding
from colophon.pipeline.stages.tokenization import TokenizeStage
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.verification.findings import Finding
from colophon.shards.annotations import ID
from colophon.shards.arrow_files import read_table
from colophon.shards.common.differences import differences
from colophon.shards.common.errors import ShardError
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.records import QuarantineEntry, Record
from colophon.shards.schema import METADATA_KEY, packed_info
from colophon.shards.tokenizer.tokenizer import Tokenizer

_UNREADABLE = (InputError, ShardError, pa.ArrowException, FileNotFoundError)
_SHOWN_DIFFERENCES = 4


@dataclass(frozen=True, kw_only=True)
class Recomputed(TaskResult):
    """A worker's result: the differences of a partition's files."""

    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class RecomputeStage:
    """The stages of a run over partitions that have files.

    A task's `upstream` has the partition's records in the manifest, its `outputs` those to compute from the input: of
    none, only packed files are compared. A task without `upstream` is a partition that was quarantined.
    """

    store: Store
    over_the_input: tuple[AnnotateStage | TokenizeStage, ...]
    encoding: TokenEncoding | None
    """See `InputPass.encoding`."""
    packing: PackStage | None

    @property
    def name(self) -> str:
        """The stage's name in progress."""
        return "verify"

    def start(self) -> RecomputeWorker:
        """A worker; models and the vocabulary are loaded when a task first needs them."""
        return RecomputeWorker(self)


class RecomputeWorker:
    """Computes the files of partitions again, and holds the models and the vocabulary for it."""

    def __init__(self, stage: RecomputeStage) -> None:
        self._stage = stage
        self._scratch = Path(tempfile.gettempdir(), f"colophon-verify-{uuid.uuid4().hex}")
        self._files = Store(str(self._scratch))

    def work(self, task: Task) -> Recomputed:
        """Compute the partition's files again; they exist in a scratch directory until the task ends."""
        findings: list[Finding] = []
        documents = text_bytes = 0
        with scratch_directory(self._scratch):
            if task.outputs:
                try:
                    result = self._input.work(replace(task, upstream={}))
                except _UNREADABLE as error:
                    findings += _cannot(task, error) if task.upstream else []
                else:
                    documents, text_bytes = result.documents, result.text_bytes
                    findings += self._from_input(task, {Output(r.output): r for r in result.records})
            for output in (output for output in task.upstream if output.stage == "pack"):
                record = task.upstream[output]
                findings += _findings(record, lambda output=output: self._packed(output, task.upstream))  # type: ignore[misc]
        return Recomputed(records=(), documents=documents, text_bytes=text_bytes, findings=tuple(findings))

    def _from_input(self, task: Task, computed: Mapping[Output, Record]) -> Iterator[Finding]:
        if not task.upstream:
            if self._can_be_packed(computed):
                message = f"its partition {task.partition.name} was quarantined, and can be processed now"
                yield Finding(task.partition.source, f"{message}. `colophon run` processes it")
            return
        for output, record in task.upstream.items():
            if output in computed:
                yield from _findings(record, lambda o=output, r=record: self._compared(o, r, computed[o]))  # type: ignore[misc]

    def _compared(self, output: Output, record: Record, expected: Record) -> list[str]:
        """The differences of annotations or tokens from those that the input gives."""
        lacks_ids = output.stage == "annotate" and ID not in record.content  # an older version wrote it
        content = {name: digest for name, digest in expected.content.items() if name != ID or not lacks_ids}
        lines = [
            *_counts(record, expected.counts),
            *(f"its record's content: {line}" for line in differences(record.content, content)),
            *_problems(record.problems, expected.problems),
        ]
        if expected.sha256 != record.sha256:
            with self._stage.store.files.local_copy(record.path) as path:
                computed = _read(output, self._scratch / expected.path)
                computed = computed.drop_columns([ID]) if lacks_ids else computed
                lines += _columns(computed, _read(output, path), again="computing")
        return lines

    def _packed(self, output: Output, records: Mapping[Output, Record]) -> list[str]:
        """The differences of a packed file from what packing the tokens again gives."""
        packing = self._stage.packing
        if packing is None or output.name not in packing.layouts:
            return []
        layout = LayoutFile(packing, self._tokenizer, output.name, records=records)
        files = self._stage.store.files
        with files.local_copy(records[TOKENS].path) as path, files.local_copy(records[output].path) as packed_path:
            tokens, found = read_table(path), read_table(packed_path)
            packed = layout.pack(tokens, layout.columns(tokens))
            expected = layout.table(packed, source="")
            # The source is named as the recipe spelled it when the file was written.
            info, its_info = (
                packed_info(table.schema, path=output).model_dump(exclude={"sources"}) for table in (expected, found)
            )
            return [
                *_counts(records[output], layout.counts(packed)),
                *(f"its metadata: {line}" for line in differences(info, its_info)),
                *_columns(expected, found, again="packing its tokens"),
            ]

    def _can_be_packed(self, computed: Mapping[Output, Record]) -> bool:
        """Whether every layout can be packed from files in the scratch directory."""
        if self._stage.packing is None:
            return True
        packing = replace(self._stage.packing, store=self._files)
        tokens = read_table(self._scratch / computed[TOKENS].path)
        try:
            for name in packing.layouts:
                layout = LayoutFile(packing, self._tokenizer, name, records=computed)
                layout.pack(tokens, layout.columns(tokens))
        except _UNREADABLE:
            return False
        return True

    @cached_property
    def _input(self) -> InputPassWorker:
        stages = tuple(replace(stage, store=self._files) for stage in self._stage.over_the_input)
        return InputPass(self._files, stages, self._stage.encoding).start()

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        packing = self._stage.packing
        assert packing is not None
        return packing.tokenizer.load()


def _findings(record: Record, compare: Callable[[], Sequence[str]]) -> list[Finding]:
    try:
        lines = compare()
    except _UNREADABLE as error:
        lines = [f"cannot be compared: {one_line(error)}"]
    return [Finding(record.path, line) for line in lines]


def _cannot(task: Task, error: Exception) -> list[Finding]:
    return [Finding(task.partition.source, f"partition {task.partition.name} cannot be read: {one_line(error)}")]


def _read(output: Output, path: Path) -> pa.Table:
    return read_table(path) if output == TOKENS else pq.read_table(path, page_checksum_verification=True)


def _columns(expected: pa.Table, found: pa.Table, *, again: str) -> list[str]:
    """The columns of a file that differ from the expected ones, each with the first row that does."""
    without = (METADATA_KEY,)  # compared by key
    if not found.schema.equals(expected.schema) or _metadata(found, without) != _metadata(expected, without):
        names = ", ".join(expected.schema.names)
        return [f"its columns are not {names} with the types and metadata that {again} again gives"]
    if found.num_rows != expected.num_rows:
        return [f"has {found.num_rows} rows; {again} again gives {expected.num_rows}"]
    return [
        f"its {name} are not those that {again} again gives{_first_row(expected.column(name), found.column(name))}"
        for name in expected.column_names
        if not _are_equal(expected.column(name), found.column(name))
    ]


def _metadata(table: pa.Table, without: Sequence[bytes]) -> dict[bytes, bytes]:
    return {key: value for key, value in (table.schema.metadata or {}).items() if key not in without}


def _are_equal(expected: pa.ChunkedArray, found: pa.ChunkedArray) -> bool:
    """Whether two columns have equal values; NaN equals NaN."""
    if not pa.types.is_floating(expected.type):
        return bool(found.equals(expected))
    same = found.is_null().equals(expected.is_null())
    values = (column.fill_null(0).to_numpy() for column in (expected, found))
    return bool(same) and np.array_equal(next(values), next(values), equal_nan=True)


def _first_row(expected: pa.ChunkedArray, found: pa.ChunkedArray) -> str:
    """`: row 3` for the first that differs, of columns without lists."""
    if pa.types.is_nested(expected.type):
        return ""
    same = pc.fill_null(pc.equal(expected, found), False)
    both_null = pc.and_(pc.is_null(expected), pc.is_null(found))
    row = pc.index(pc.or_(same, both_null), pa.scalar(False)).as_py()
    return f": row {row} has {found[row].as_py()!r:.60}, not {expected[row].as_py()!r:.60}" if row >= 0 else ""


def _counts(record: Record, computed: Mapping[str, int]) -> list[str]:
    return [f"its record counts {line}" for line in differences(record.counts, dict(computed))[:_SHOWN_DIFFERENCES]]


def _problems(recorded: Sequence[QuarantineEntry], computed: Sequence[QuarantineEntry]) -> list[str]:
    """A line if the excluded rows are others; the stages that read, and the spelling of the path, may differ."""
    mine, again = ([entry.model_dump(exclude={"stage", "source"}) for entry in each] for each in (recorded, computed))
    if mine == again:
        return []
    lines = differences(dict(enumerate(mine)), dict(enumerate(again)))
    return [f"its record excludes other rows than reading the input again gives: {lines[0]}"]
