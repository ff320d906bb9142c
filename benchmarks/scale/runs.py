"""Runs over many partitions: a first one whose stage does nothing, one that finds all done, and `status`.

Everything is that of a real run but the work: the search and the plan, the tasks, the ledger with its segments, the
checks of all files, the manifest and the report. The stage tokenizes nothing: an output file is a hard link of one
empty file, and its commit record is written as a worker writes it. What a worker's own publication takes does not
depend on the number of partitions, and is measured apart.

For sizes without a first run, the files and segments that one leaves are written at once, and a run that is not
measured writes the manifest.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.scale.planning import SIZES, write_input
from benchmarks.scale.processes import summary, timed
from benchmarks.summary import Spread, interleaved
from colophon.pipeline.executors.base import Executor
from colophon.pipeline.executors.session import ExecutorName, ExecutorSession
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.recipe.schema import Recipe
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.recipe_run import RecipeRun
from colophon.pipeline.runs.resolve import resolve
from colophon.pipeline.stages.tasks import Outcome, Stage, Task, TaskResult
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.pass_record import PassRecord, pending_path
from colophon.pipeline.storage.segments import of_output, write_segment
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.record_table import RECORDS, row_of
from colophon.shards.records import Record

STEPS = {"first": "first run", "run": "run that finds all done", "status": "`status`"}
_PUBLICATIONS = 2000
_ROWS_OF_A_SEGMENT = 1 << 18
_COUNTS = {"text_bytes": 1, "tokens": 1, "documents_empty": 0, "texts_null": 0, "texts_repaired": 0}
_RECIPE = """
[input]
paths = [{paths}]
partition_bytes = 1
[output]
path = {output}
[tokenizer]
path = {vocabulary}
pattern = "gpt2"
[layouts]
"""


class _NoWork(Executor):
    """Commits an empty file for each output of a task, in this process."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield the outcome of each task."""
        empty = self._root / ".empty"
        empty.touch()
        for task in tasks:
            records = tuple(self._committed(task, empty))
            yield Outcome(task=task, result=TaskResult(records=records, documents=1, text_bytes=1))

    def _committed(self, task: Task, empty: Path) -> list[Record]:
        partition = task.partition.name
        records = [_record(output, partition, fingerprint) for output, fingerprint in task.outputs.items()]
        for record in records:
            os.link(empty, f"{self._root}/{record.path}")
        text = PassRecord(partition=partition, records=records).model_dump_json()
        (self._root / pending_path(partition)).write_text(text, encoding="utf-8")
        return records


def _record(output: Output, partition: str, fingerprint: str) -> Record:
    return Record(
        output=output,
        partition=partition,
        path=f"{output}/{partition}{output.suffix}",
        rows=1,
        bytes=0,
        sha256=sha256().hexdigest(),
        fingerprint=fingerprint,
        counts=_COUNTS,
        content={"text": fingerprint},
    )


class _Session(ExecutorSession):
    """A session whose executor does no work."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(ExecutorName.INLINE, recipe.ray, log=lambda line: None)
        self._root = Path(recipe.output.path)

    @cached_property
    def executor(self) -> Executor:
        """The executor."""
        return _NoWork(self._root)


def write_recipe(directory: Path, *, paths: Path) -> Path:
    """Write a recipe that tokenizes with a vocabulary of bytes, into `out` beside it; return its path."""
    for place in ("out/tokens", "out/records/pending"):
        (directory / place).mkdir(parents=True)
    vocabulary = directory / "bytes.tiktoken"
    lines = (f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
    vocabulary.write_text("".join(lines), encoding="utf-8")
    places = {"paths": paths, "output": directory / "out", "vocabulary": vocabulary}
    recipe = directory / "recipe.toml"
    recipe.write_text(_RECIPE.format(**{key: json.dumps(str(place)) for key, place in places.items()}), "utf-8")
    return recipe


def first_run(recipe: Path) -> dict[str, float]:
    """Run a recipe without its stage's work in this process; return partitions, and seconds of the pass."""
    from rich.console import Console

    loaded, begun = load_recipe(str(recipe)), time.monotonic()
    console = Console(quiet=True)
    run = RecipeRun(recipe=loaded, where=str(recipe), console=console, log=lambda line: None, begun=begun)
    with _Session(loaded) as session:
        result = run.within(session)
    return {"partitions": len(result.manifest.partitions), "pass_seconds": result.timings[0].seconds}


def prepare(recipe: Path) -> None:
    """Write the files and segments that a first run of the recipe leaves."""
    resolved = resolve(load_recipe(str(recipe)), where=str(recipe))
    names, found = resolved.inputs.partitions.names, Plan(resolved).fingerprints(TOKENS)
    paths = [f"{TOKENS}/{name}.arrow" for name in names.to_pylist()]
    same = row_of(_record(TOKENS, "same", "")) | {"content": json.dumps({"text": "0" * 64})}
    columns = {name: pa.repeat(pa.scalar(same[name], RECORDS.field(name).type), len(names)) for name in RECORDS.names}
    rows = pa.table({**columns, "partition": names, "path": paths, "fingerprint": found}, schema=RECORDS)
    segments: list[str] = []
    for start in range(0, len(rows), _ROWS_OF_A_SEGMENT):
        segment = of_output(rows.slice(start, _ROWS_OF_A_SEGMENT), TOKENS)
        segments.append(write_segment(resolved.store.files, segment, after=segments))
    empty = resolved.store.files.path / ".empty"
    empty.touch()
    for path in paths:
        os.link(empty, f"{empty.parent}/{path}")


def publication(directory: Path) -> dict[str, float]:
    """Publish small files one after the other, as a worker does; return CPU and wall seconds of one."""
    store = Store(str(directory))
    begun, begun_cpu = time.perf_counter(), time.process_time()
    for number in range(_PUBLICATIONS):
        partition = f"part-{'0' * 32}-{number:05}"
        with store.draft(output="tokens", partition=partition, suffix=".arrow") as file:
            file.path.touch()
            finished = file.finish(check=lambda path: None, rows=1, fingerprint="0" * 64, counts=_COUNTS)
            store.publish([finished])
    cpu = time.process_time() - begun_cpu
    return {"seconds": (time.perf_counter() - begun) / _PUBLICATIONS, "cpu_seconds": cpu / _PUBLICATIONS}


def measure_runs(
    sizes: Sequence[int], *, rounds: int, work: Path, first_sizes: Sequence[int] = SIZES
) -> dict[str, Any]:
    """Measure runs over inputs of row groups of all sizes, first ones of `first_sizes`, and a worker's publication."""
    work.mkdir(parents=True)
    runs: dict[str, dict[str, list[dict[str, float]]]] = {step: {} for step in STEPS}
    published = []
    for size in sizes:
        write_input("row groups", size, work / str(size))
    for turn, name in interleaved([str(size) for size in sizes], rounds=rounds):
        for step, found in _steps(work / name, work / "run", is_first=int(name) in first_sizes):
            assert int(found.pop("partitions", int(name))) == int(name)
            print(f"round {turn + 1}: {int(name):,} partitions, {STEPS[step]}: {found['seconds']:.1f} s", flush=True)
            runs[step].setdefault(name, []).append(found)
        published.append(json.loads(timed(["benchmarks.scale", "publication", str(work / "published")])[0]))
        shutil.rmtree(work / "published")
    shutil.rmtree(work)
    return {
        "steps": {step: summary(of_step) for step, of_step in runs.items()},
        "publication": {key: Spread.of([one[key] for one in published]).as_dict() for key in published[0]},
    }


def _steps(paths: Path, directory: Path, *, is_first: bool) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure each of `STEPS` on one input, in a new directory that is deleted afterwards."""
    recipe = write_recipe(directory, paths=paths)
    if is_first:
        output, usage = timed(["benchmarks.scale", "first", str(recipe)])
        yield "first", {**usage, **json.loads(output.splitlines()[-1])}
    else:
        prepare(recipe)
        timed(["colophon", "run", str(recipe), "--json"])
    for command in ("run", "status"):
        yield command, timed(["colophon", command, str(recipe), "--json"])[1]
    shutil.rmtree(directory)
