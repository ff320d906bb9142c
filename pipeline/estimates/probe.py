"""The probe: a recipe's stages on some rows of its input, in this process and in a temporary directory."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from colophon.annotators.remote import RemoteAnnotator
from colophon.pipeline.estimates.rates import Rate, rate_of
from colophon.pipeline.estimates.sample import SampledRows, sampled_rows
from colophon.pipeline.executors.inline import InlineExecutor
from colophon.pipeline.recipe.schema import InputSection, OutputSection
from colophon.pipeline.runs.calibration import calibrated
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import ResolvedRecipe, resolve
from colophon.pipeline.runs.run import PassTiming, Run
from colophon.shards.outputs import StageName

_WARM_UP_ROWS = 32


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The rates of a probe, by pass."""

    rates: Mapping[tuple[StageName, ...], Rate]
    documents: int
    text_bytes: int
    seconds: float


def probe(resolved: ResolvedRecipe, stages: Sequence[str]) -> Probe:
    """Run the stages over up to 8 MB of text: about two seconds, and whatever the models take to load.

    The first rows are run twice, so that imports, models and compiled code are not part of the rates. A rate counts the
    CPU time of all threads, because a worker has one core.

    Raises:
        ColophonError: no row can be read, or a stage fails.
    """
    begun = time.monotonic()
    rows = sampled_rows(resolved.inputs.partitions, list(resolved.columns.needs.values()))
    with tempfile.TemporaryDirectory(prefix="colophon-probe-") as directory:
        tables = _tables(rows.batches)
        warm_up = _copy(resolved, [table.slice(0, _WARM_UP_ROWS) for table in tables], Path(directory, "warm-up"))
        measured = _copy(resolved, tables, Path(directory, "measured"))
        rates = {}
        for names in Plan(resolved).passes(stages):
            if names == ("pack",) and "tokenize" not in stages:  # it reads what the first pass writes
                for copy in (warm_up, measured):
                    _timed(copy, ("annotate", "tokenize"))
            _timed(warm_up, names)
            rates[names] = _rate(*_timed(measured, names), rows)
    return Probe(
        rates=rates, documents=rows.documents, text_bytes=rows.text_bytes, seconds=round(time.monotonic() - begun, 1)
    )


def _tables(batches: Sequence[pa.RecordBatch]) -> list[pa.Table]:
    """Return the rows in a table for each schema: of one column, files may have the types string and large_string."""
    by_schema: dict[pa.Schema, list[pa.RecordBatch]] = {}
    for batch in batches:
        by_schema.setdefault(batch.schema, []).append(batch)
    return [pa.Table.from_batches(batches) for batches in by_schema.values()]


def _copy(resolved: ResolvedRecipe, tables: Sequence[pa.Table], directory: Path) -> ResolvedRecipe:
    """Return the recipe with these rows as its input, a file for each table, and an output of its own."""
    directory.mkdir()
    files = [directory / f"rows-{number}.parquet" for number in range(len(tables))]
    for file, table in zip(files, tables, strict=True):
        pq.write_table(table, file)
    columns = {column.name: name for name, column in resolved.columns.typed.items()}
    recipe = resolved.recipe.model_copy(
        update={
            "inputs": None,
            "input": InputSection(paths=list(map(str, files)), columns=columns),
            "output": OutputSection(path=str(directory / "out")),
        }
    )
    copy = replace(resolve(recipe, where=resolved.where), vocabulary=resolved.vocabulary)
    return calibrated(_without_requests(copy), write=True, log=lambda line: None)


def _without_requests(resolved: ResolvedRecipe) -> ResolvedRecipe:
    """Return the recipe with annotators that ask no service: that may cost money."""
    annotators = (a.without_requests() if isinstance(a, RemoteAnnotator) else a for a in resolved.annotators)
    return resolved.with_annotators([*annotators])


def _timed(resolved: ResolvedRecipe, stages: Sequence[str]) -> tuple[PassTiming, float]:
    """Run one pass; its timing, and its seconds without the loading of models."""
    console, executor = Console(file=io.StringIO()), InlineExecutor()
    cpu = time.process_time()
    (timing,) = Run(resolved, stages=stages, executor=executor, console=console).execute().timings
    cpu = time.process_time() - cpu
    return timing, max(max(cpu, timing.seconds) - timing.worker_seconds.get("load", 0.0), 1e-3)


def _rate(timing: PassTiming, seconds: float, rows: SampledRows) -> Rate:
    return rate_of(
        input_bytes=rows.partition_bytes,
        worker_seconds=seconds,
        documents=rows.documents,
        text_bytes=rows.text_bytes,
        written_bytes=timing.written_bytes,
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
