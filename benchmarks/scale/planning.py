"""The planning of inputs of many partitions: JSONL files, row groups of Parquet files, Parquet files.

The files of one input are hard links of one, in memory: their number counts, and not the disk. A measurement searches
the input and plans its partitions, as every command does before it reads a commit record.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scale.processes import summary, timed
from benchmarks.summary import interleaved
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.search.find import find_files
from colophon.pipeline.recipe.schema import InputSection

SIZES = (10_000, 100_000, 1_000_000)
KINDS = {"jsonl": "JSONL files", "row groups": "row groups of Parquet files", "parquet": "Parquet files"}
_FILES_OF_A_DIRECTORY = 1000
_ROW_GROUPS_OF_A_FILE = 10_000


def write_input(kind: str, partitions: int, directory: Path) -> None:
    """Write an input of as many partitions; of row groups, 10,000 in a file."""
    directory.mkdir(parents=True)
    groups = min(_ROW_GROUPS_OF_A_FILE, partitions) if kind == "row groups" else 1
    first = directory / ("first.jsonl" if kind == "jsonl" else "first.parquet")
    if kind == "jsonl":
        first.write_text('{"text": "a", "id": "1"}\n')
    else:
        pq.write_table(pa.table({"text": ["a"] * groups, "id": ["1"] * groups}), first, row_group_size=1)
    for number in range(1, partitions // groups):
        place = directory / f"{number // _FILES_OF_A_DIRECTORY:04d}"
        if number % _FILES_OF_A_DIRECTORY == 0 or number == 1:
            place.mkdir()
        (place / f"part-{number:07d}{first.suffix}").hardlink_to(first)


def plan(directory: Path) -> dict[str, float]:
    """Plan an input in this process; return partitions, seconds and the peak of memory."""
    begun, begun_cpu = time.perf_counter(), time.process_time()
    config = InputSection(paths=[str(directory)], partition_bytes=1)
    search = find_files(config)
    searched = time.perf_counter()
    inputs = plan_inputs(config, needs=[ColumnNeed("text", "text")], search=search)
    return {
        "partitions": len(inputs.partitions),
        "search_seconds": searched - begun,
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - begun_cpu,
        "peak_mb": _peak_kilobytes() / 1000,
    }


def _peak_kilobytes() -> int:
    """Return the most memory of this process; getrusage counts what its parent had before."""
    match = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert match is not None
    return int(match[1])


def measure_planning(sizes: Sequence[int], *, rounds: int, work: Path) -> dict[str, Any]:
    """Measure the planning of all kinds and sizes of inputs."""
    kinds = {}
    for kind, title in KINDS.items():
        places = {str(size): work / f"{kind.replace(' ', '-')}-{size}" for size in sizes}
        for size in sizes:
            write_input(kind, size, places[str(size)])
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in places}
        for turn, name in interleaved(list(places), rounds=rounds):
            output, _ = timed(["benchmarks.scale", "plan", str(places[name])])
            found = json.loads(output)
            assert found["partitions"] == int(name)
            print(f"round {turn + 1}: {int(name):,} {title}: {found['seconds']:.1f} s", flush=True)
            runs[name].append(found)
        shutil.rmtree(work)
        kinds[kind] = summary(runs)
    return {"kinds": kinds}
