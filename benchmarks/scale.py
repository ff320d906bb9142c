"""How the planning of a run grows with the number of its partitions.

    python -m benchmarks.scale            measure, write benchmarks/results/scale.json and the table in docs/speed.md
    python -m benchmarks.scale table      write the table from the results that there are

Three inputs of one document a partition: JSONL files, row groups of Parquet files with 10,000 each, and Parquet files.
The files of one input are hard links of one, in memory: their number counts, and not the disk. Each measurement is a
process of its own, the sizes interleaved by rounds. It searches the input and plans its partitions, as every command
does before it reads a commit record.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import in_words, machine
from benchmarks.summary import Spread, interleaved, line_fit
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.search.find import find_files
from colophon.pipeline.recipe.schema import InputSection

RESULTS = Path(__file__).parent / "results" / "scale.json"
PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
SIZES = (10_000, 100_000, 1_000_000)
KINDS = {"jsonl": "JSONL files", "row groups": "row groups of Parquet files", "parquet": "Parquet files"}
_FILES_OF_A_DIRECTORY = 1000
_ROW_GROUPS_OF_A_FILE = 10_000
_BEGIN, _END = "<!-- scale -->\n", "<!-- /scale -->"


def write_input(kind: str, partitions: int, directory: Path) -> None:
    """Write an input of as many partitions, a multiple of 10,000 for row groups."""
    directory.mkdir(parents=True)
    groups = _ROW_GROUPS_OF_A_FILE if kind == "row groups" else 1
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


def measure(sizes: Sequence[int], *, rounds: int, work: Path) -> dict[str, Any]:
    """Measure all kinds and sizes; return the content of `scale.json`."""
    kinds = {}
    for kind, title in KINDS.items():
        places = {str(size): work / f"{kind.replace(' ', '-')}-{size}" for size in sizes}
        for size in sizes:
            write_input(kind, size, places[str(size)])
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in places}
        for turn, name in interleaved(list(places), rounds=rounds):
            command = [sys.executable, "-m", "benchmarks.scale", "plan", str(places[name])]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            assert found["partitions"] == int(name)
            print(f"round {turn + 1}: {int(name):,} {title}: {found['seconds']:.1f} s", flush=True)
            runs[name].append(found)
        shutil.rmtree(work)
        work.mkdir()
        kinds[kind] = _summary(runs)
    return {"machine": machine(), "rounds": rounds, "kinds": kinds}


def _summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    sizes = {
        name: {key: Spread.of([run[key] for run in of_size]).as_dict() for key in of_size[0] if key != "partitions"}
        for name, of_size in runs.items()
    }
    every = [run for of_size in runs.values() for run in of_size]
    lines = {
        key: dict(zip(("start", "per_partition", "r_squared"), line_fit(*_points(every, key)), strict=True))
        for key in ("seconds", "cpu_seconds", "peak_mb")
    }
    return {"sizes": sizes, "lines": lines}


def _points(runs: Sequence[dict[str, float]], key: str) -> tuple[list[float], list[float]]:
    return [run["partitions"] for run in runs], [run[key] for run in runs]


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    rows = [
        "| input | partitions | wall s | CPU s | peak memory |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines = []
    for kind, found in results["kinds"].items():
        for size, of_size in found["sizes"].items():
            wall, cpu, peak = (of_size[key] for key in ("seconds", "cpu_seconds", "peak_mb"))
            spread = f"{wall['median']:.1f}"
            if len(wall["values"]) > 1:
                spread += f" ({wall['lowest']:.1f}–{wall['highest']:.1f})"
            megabytes = f"{peak['median']:,.0f} MB"
            rows.append(f"| {KINDS[kind]} | {int(size):,} | {spread} | {cpu['median']:.1f} | {megabytes} |")
        cpu, memory = found["lines"]["cpu_seconds"], found["lines"]["peak_mb"]
        lines.append(
            f"{KINDS[kind]}: {cpu['per_partition'] * 1e6:.0f} µs of CPU (R² = {cpu['r_squared']:.4f}) and "
            f"{memory['per_partition'] * 1e3:.2f} kB (R² = {memory['r_squared']:.4f}) a partition."
        )
    rounds = results["rounds"]
    runs = "one run of each" if rounds == 1 else f"median of {rounds} interleaved rounds"
    where = f"{in_words(results['machine'])}; {runs}."
    return "\n".join([where, "", *rows, "", *lines]) + "\n"


def _write_page(results: dict[str, Any]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(_BEGIN)
    PAGE.write_text(before + _BEGIN + table(results) + _END + rest.partition(_END)[2], encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", default="measure", choices=["measure", "plan", "table"])
    parser.add_argument("directory", nargs="?", type=Path, help="of the input, for `plan`")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of partitions")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if options.command == "plan":
        print(json.dumps(plan(options.directory)))
        return
    if options.command == "measure":
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as work:
            results = measure(options.sizes, rounds=options.rounds, work=Path(work) / "input")
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    _write_page(json.loads(RESULTS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
