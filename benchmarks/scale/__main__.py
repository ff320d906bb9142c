"""How a run grows with the number of its partitions: `python -m benchmarks.scale`.

    python -m benchmarks.scale            measure all, write results/scale.json and the tables in docs/speed.md
    python -m benchmarks.scale planning   measure planning alone
    python -m benchmarks.scale runs       measure runs alone
    python -m benchmarks.scale table      write the tables from the results that there are

Each measurement is a process of its own, the sizes interleaved by rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.scale.page import RESULTS, write_page
from benchmarks.scale.planning import SIZES, measure_planning, plan
from benchmarks.scale.runs import first_run, measure_runs, publication


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = ["measure", "planning", "runs", "table", "plan", "first", "publication"]
    parser.add_argument("command", nargs="?", default="measure", choices=commands)
    parser.add_argument("path", nargs="?", type=Path, help="the input of `plan`, the recipe of `first`, a directory")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of partitions")
    parser.add_argument("--first-sizes", type=int, nargs="*", default=SIZES, help="those of them with a first run")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    parts = {"plan": plan, "first": first_run, "publication": publication}
    if options.command in parts:
        print(json.dumps(parts[options.command](options.path)))
        return
    if options.command != "table":
        _measure(options.command, sizes=options.sizes, rounds=options.rounds, first_sizes=options.first_sizes)
    write_page(json.loads(RESULTS.read_text(encoding="utf-8")))


def _measure(command: str, *, sizes: Sequence[int], rounds: int, first_sizes: Sequence[int]) -> None:
    """Measure, and replace this part of the results."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    memory = Path("/dev/shm")
    parts: dict[str, Any] = {
        "planning": measure_planning,
        "runs": partial(measure_runs, first_sizes=first_sizes),
    }
    for name in [command] if command in parts else parts:
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as work:
            found = parts[name](sizes, rounds=rounds, work=Path(work) / "scale")
        known = {**known, name: {"machine": machine(), "rounds": rounds, **found}}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
