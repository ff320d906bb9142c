"""The probe: a recipe's stages on some rows of its input, in this process and in a temporary directory.

The rows are in files of growing size: 1, 1, 8, 64, ... rows. The stages work on one after the other while the next one
is expected to end in time; the last of them is measured. The first is warm-up: imports and models.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from colophon.annotators.base import DOCUMENT_FILE
from colophon.annotators.remote import RemoteAnnotator
from colophon.pipeline.errors import UsageError
from colophon.pipeline.estimates.rates import Rate, rate_of
from colophon.pipeline.estimates.sample import SampledRows, sampled_rows
from colophon.pipeline.executors.worker import Workplace
from colophon.pipeline.recipe.schema import InputSection
from colophon.pipeline.runs.calibration import calibrated
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.stages.tasks import Stage, Task, TaskResult
from colophon.shards.common.errors import ColophonError
from colophon.shards.outputs import StageName

_SECONDS = 2.0
"""The time of the stages that read the input; packing what they wrote is quick, whatever the annotators are."""
_COMPUTING = ("annotate", "tokenize", "pack")
_GROWTH = 8
_FEW_DOCUMENTS = 64


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The rates of a probe, by pass."""

    rates: Mapping[tuple[StageName, ...], Rate]
    documents: int
    """The documents that were measured: fewer than were read where annotators are slow."""
    text_bytes: int
    seconds: float
    is_cut: bool
    """Whether time ran out before all rows that were read were measured."""

    @property
    def is_rough(self) -> bool:
        """Whether a few documents are all that there was time for."""
        return self.is_cut and self.documents < _FEW_DOCUMENTS


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """The work on one file of rows."""

    result: TaskResult
    seconds: float
    """Without the loading of models."""
    cores: float
    """Processor seconds for each of them, at least 1: a worker has one core."""

    @property
    def computing(self) -> float:
        """The part of the seconds that grows with the number of rows."""
        return sum(self.result.seconds.get(step, 0.0) for step in _COMPUTING)

    def expected(self, rows: int) -> float:
        """The seconds that a file of so many rows would take."""
        return self.seconds + self.computing * (rows / self.result.documents - 1)


def probe(resolved: ResolvedRecipe, stages: Sequence[str]) -> Probe:
    """Run the stages over up to 8 MB of text: about two seconds, and whatever the models take to load.

    Slow annotators get fewer rows. One that takes longer than that for a row gets two rows.

    Raises:
        ColophonError: no row can be read, or a stage fails.
    """
    begun = time.monotonic()
    rows = sampled_rows(resolved.inputs.partitions, list(resolved.columns.needs.values()))
    with tempfile.TemporaryDirectory(prefix="colophon-probe-") as directory:
        copy = _copy(resolved, _write_files(rows, Path(directory)), Path(directory, "out"))
        passes = Plan(copy).passes(stages)
        if ("pack",) in passes and "tokenize" not in stages:  # it reads what the first pass writes
            passes = [("annotate", "tokenize"), ("pack",)]
        measured = _measured_passes(copy, passes)
    first = next(iter(measured.values()))
    is_cut = sum(one.result.documents for one in first) < rows.documents
    return Probe(
        rates={names: _rate(done, rows) for names, done in measured.items() if {*names} <= {*stages}},
        documents=first[-1].result.documents,
        text_bytes=first[-1].result.text_bytes,
        seconds=round(time.monotonic() - begun, 1),
        is_cut=is_cut,
    )


def _write_files(rows: SampledRows, directory: Path) -> list[Path]:
    """Write the rows as files that the input may be: of 1, 1, 8, 64, ... rows and of the rest.

    Rows whose text has nearly the mean length come first: a file of one row is as typical as it can be.
    """
    # Of one column, files may have the types string and large_string.
    table = pa.concat_tables(map(_table, rows.batches), promote_options="permissive")
    lengths = pc.fill_null(pc.binary_length(table.column("text")), 0).to_numpy()
    table = table.take(np.argsort(np.abs(lengths - lengths.mean()), kind="stable"))
    files: list[Path] = []
    for start, end in _bounds(table.num_rows):
        files.append(directory / f"rows-{len(files)}.parquet")
        pq.write_table(table.slice(start, end - start), files[-1])
    return files


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def _bounds(num_rows: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of rows of the files: (0, 1), (1, 2), (2, 10), (10, 74), ..., the last one to the end."""
    start = 0
    for size in chain([1], (_GROWTH**power for power in count())):
        end = start + size if start + 2 * size < num_rows else num_rows
        yield start, end
        if end == num_rows:
            return
        start = end


def _copy(resolved: ResolvedRecipe, files: Sequence[Path], output: Path) -> ResolvedRecipe:
    """Return the recipe with these files as its input and an output of its own; it asks no service.

    Annotators are calibrated on the first files that suffice: all of them would take as long as the work itself.
    """
    annotators = (a.without_requests() if isinstance(a, RemoteAnnotator) else a for a in resolved.annotators)
    copy = _selecting_by_known(resolved).with_annotators([*annotators])
    for number in range(1, len(files) + 1):
        try:
            fitted = calibrated(_over(copy, files[:number], output), write=True, log=lambda line: None)
        except UsageError:
            if number == len(files):
                raise
        else:
            break
    return _over(fitted, files, output)


def _selecting_by_known(resolved: ResolvedRecipe) -> ResolvedRecipe:
    """Return the recipe without conditions on columns that are null here: of services, and of the input's own files."""
    nulls = {
        column
        for annotator in resolved.annotators
        if isinstance(annotator, RemoteAnnotator) or DOCUMENT_FILE in annotator.columns
        for column in annotator.schema.names
    }
    layouts = {
        name: layout.model_copy(update={"where": {c: each for c, each in layout.where.items() if c not in nulls}})
        for name, layout in resolved.recipe.layouts.items()
    }
    return replace(resolved, recipe=resolved.recipe.model_copy(update={"layouts": layouts}))


def _over(resolved: ResolvedRecipe, files: Sequence[Path], output: Path) -> ResolvedRecipe:
    columns = {column.name: name for name, column in resolved.columns.typed.items()}
    return resolved.over(InputSection(paths=[*map(str, files)], columns=columns), output=str(output))


def _measured_passes(
    copy: ResolvedRecipe, passes: Sequence[tuple[StageName, ...]]
) -> dict[tuple[StageName, ...], list[_Measured]]:
    """Do the work of each pass, of later ones on the files that the first had time for."""
    found: dict[tuple[StageName, ...], list[_Measured]] = {}
    left_out: set[str] = set()
    for names in passes:
        plan = Plan(copy)
        tasks = [*plan.tasks(names, without=left_out)]
        found[names] = [*_in_time(plan, names, tasks)]
        left_out |= {task.partition.name for task in tasks[len(found[names]) :]}
    return found


def _in_time(plan: Plan, names: tuple[StageName, ...], tasks: Sequence[Task]) -> Iterator[_Measured]:
    """Work on the tasks, from the smallest on, while the next one is expected to end in time; on two at least."""
    stage, workplace, until = plan.stage(names), Workplace(), 0.0
    done: list[_Measured] = []
    for task in tasks:
        rows, now = task.partition.rows or 1, time.monotonic()
        if len(done) == 1:
            until = now + _SECONDS
        if len(done) > 1 and now + done[-1].expected(rows) > until:
            return
        done.append(_measured(task, stage, workplace))
        yield done[-1]


def _measured(task: Task, stage: Stage, workplace: Workplace) -> _Measured:
    wall, cpu = time.monotonic(), time.process_time()
    outcome = workplace.work(task, number=0, stage=lambda: stage)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    if outcome.result is None:
        raise ColophonError(outcome.error or "no reason given")
    seconds = max(wall - outcome.result.seconds.get("load", 0.0), 1e-3)
    return _Measured(result=outcome.result, seconds=seconds, cores=max(cpu / wall, 1.0))


def _rate(done: Sequence[_Measured], rows: SampledRows) -> Rate:
    """Return the rate of the last file, without what a file of one row takes beside the computation."""
    last, fixed = done[-1], done[1].seconds - done[1].computing if len(done) > 1 else 0.0
    by_text = last.result.text_bytes / max(rows.text_bytes, 1)  # 0 for a pass that reads no text
    part = by_text or last.result.documents / rows.documents
    return rate_of(
        input_bytes=max(round(rows.partition_bytes * part), 1),
        worker_seconds=max(last.seconds - fixed, last.computing) * last.cores,
        documents=last.result.documents,
        text_bytes=last.result.text_bytes,
        written_bytes={record.output: record.bytes for record in last.result.records},
        worker_bytes=_own_memory(),
    )


def _own_memory() -> int | None:
    """Return the memory of this process without mapped files; None where the system does not report it."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    sizes = {name: int(rest[0]) << 10 for name, *rest in map(str.split, lines[1:])}
    return sizes.get("Anonymous:")
