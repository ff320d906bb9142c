"""How fast `colophon convert` writes, beside a copy of the same files.

    python -m benchmarks.conversion RUN --layout NAME      measure, and write benchmarks/results/conversion.json

RUN is the output of a finished run. In each round every format is converted once, in this process, and then the files
that it wrote are copied by `cp` and synced. A conversion also hashes its files and reads them back.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.summary import Spread, interleaved
from colophon.pipeline.conversion.conversion import FORMATS, Conversion

RESULTS = Path(__file__).parent / "results" / "conversion.json"


def measure(run: Path, *, layout: str, to: str, work: Path) -> dict[str, float]:
    """Convert once and copy the result; return bytes of ids, bytes written, and seconds of each."""
    converted, copied = work / "converted", work / "copied"
    conversion = Conversion(run, layout=layout, to=to)
    dataset = conversion.dataset
    subprocess.run(["sync", str(work)], check=True)  # earlier writes must not slow this one
    begun, begun_cpu = time.perf_counter(), time.process_time()
    conversion.write(converted)
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - begun_cpu
    begun = time.perf_counter()
    subprocess.run(["cp", "-r", str(converted), str(copied)], check=True)
    subprocess.run(["sync", "-f", str(copied)], check=True)
    copy_seconds = time.perf_counter() - begun
    written = sum(path.stat().st_size for path in converted.rglob("*") if path.is_file())
    shutil.rmtree(converted)
    shutil.rmtree(copied)
    return {
        "id_bytes": len(dataset) * (dataset.sequence_length + 1) * dataset.id_dtype.itemsize,
        "written_bytes": written,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "copy_seconds": copy_seconds,
    }


def summary(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The spread of one format's rounds: MB/s of written files, beside those of the copy, and MB of ids a second."""
    written = [run["written_bytes"] / 1e6 for run in runs]
    return {
        "written_mb": written[0],
        "mb_per_second": Spread.of([size / run["seconds"] for size, run in zip(written, runs, strict=True)]).as_dict(),
        "copy_mb_per_second": Spread.of(
            [size / run["copy_seconds"] for size, run in zip(written, runs, strict=True)]
        ).as_dict(),
        "seconds_of_a_copy": Spread.of([run["seconds"] / run["copy_seconds"] for run in runs]).as_dict(),
        "id_mb_per_cpu_second": Spread.of([run["id_bytes"] / 1e6 / run["cpu_seconds"] for run in runs]).as_dict(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversion", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--layout", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", choices=FORMATS, action="append", default=[])
    options = parser.parse_args(arguments)
    names = options.only or list(FORMATS)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(dir=options.run.resolve().parent) as work:
        for _, name in interleaved(names, rounds=options.rounds):
            runs[name].append(measure(options.run, layout=options.layout, to=name, work=Path(work)))
    found = {name: summary(each) for name, each in runs.items()}
    result = {"machine": machine(), "rounds": options.rounds, "formats": found}
    options.results.write_text(json.dumps(result, indent=1) + "\n")
    for name, each in found.items():
        print(name, json.dumps(each))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
