"""`python -m benchmarks`: the whole job against peers, each part alone, scaling, the table and the chart."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contestants import contestants
from benchmarks.whole_job import run_whole_job
from benchmarks.workload import DEFAULT_MEGABYTES, REAL, SMALL, Workload, find_input, make_workload, within

RESULTS = Path(__file__).parent / "results"
SECTIONS = ("whole-job", "parts", "scaling")
_QUICK_MEGABYTES = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 unless something failed."""
    options = _parser().parse_args(arguments)
    sections = SECTIONS if options.command == "all" else [options.command]
    workload = _workload(options)
    for section in sections:
        _say(f"\n== {section} ==")
        result = run_whole_job(_chosen(options), workload, rounds=options.rounds, work=options.work, log=_say)
        _write(options.results / f"{section.replace('-', '_')}.json", result)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("command", choices=[*SECTIONS, "all"], nargs="?", default="all")
    parser.add_argument("--input", action="append", default=[], metavar="PATH")
    parser.add_argument("--max-mb", type=float, default=DEFAULT_MEGABYTES)
    parser.add_argument("--work", type=lambda p: Path(p).absolute(), default=Path("out/bench").absolute())
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--dolma-python", metavar="PATH")
    parser.add_argument("--quick", action="store_true")
    return parser


def _workload(options: argparse.Namespace) -> Workload:
    name, files = find_input(options.input, work=options.work, log=_say)
    return make_workload(
        name,
        within(files, options.max_mb),
        work=options.work,
        workers=options.workers,
        sizes=SMALL if options.quick else REAL,
        models=options.models,
        log=_say,
    )


def _chosen(options: argparse.Namespace) -> dict[str, Any]:
    known = contestants(work=options.work, dolma_python=options.dolma_python)
    return {name: c for name, c in known.items() if not options.only or name in options.only}


def _write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _say(f"wrote {path}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
