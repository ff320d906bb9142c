"""Checks and measures the trainer on this machine's GPU in nine minutes, and prints the table of the results.

    python -m benchmarks.gpu                   into benchmarks/results/gpu
    python -m benchmarks.gpu --output DIR --minutes 5 --part equality
    python -m benchmarks.gpu page              Markdown of the results

The input is made on the spot. The parts run in the order of worth, each in a process with its own time limit, and
append to result files as they go: a run that is cut short keeps what it has. Without a GPU, only `--size tiny` with an
`--output` runs, which tries the parts with tiny models.

Exit code: 0 all parts are complete, 1 a part failed, 2 no GPU or invalid options, 3 no part failed and the time ended
before one was complete.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.page import page
from benchmarks.gpu.plan import parts
from benchmarks.gpu.running import COMPLETE, run_parts

RESULTS = Path(__file__).parents[1] / "results" / "gpu"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code that `--help` documents."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "page":
        sys.stdout.write(page(options.output))
        return 0
    if options.size == "full" and not torch.cuda.is_available():
        parser.error(f"torch {torch.__version__} finds no GPU; --size tiny --output DIR tries the parts on a CPU")
    if options.size == "tiny" and options.output == RESULTS:
        parser.error(f"--size tiny needs an --output: {RESULTS} is for results of a GPU")
    planned = {part.name: part for part in parts(options.size)}
    for name in options.part or []:
        if name not in planned:
            parser.error(f"unknown part '{name}'; available: {', '.join(planned)}")
    chosen = [part for name, part in planned.items() if not options.part or name in options.part]
    run = run_parts(chosen, output=options.output, minutes=options.minutes, size=options.size)
    sys.stdout.write(page(options.output))
    return exit_code([ended["end"] for ended in run["parts"].values()])


def exit_code(ends: Sequence[str]) -> int:
    """Return 0 if all parts are complete, 1 if one failed, 3 if none failed and one was cut short or not started."""
    if any(end.startswith("failed") for end in ends):
        return 1
    return 0 if all(end == COMPLETE for end in ends) else 3


def _parser() -> argparse.ArgumentParser:
    names = [part.name for part in parts("full")]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("command", choices=["run", "page"], nargs="?", default="run")
    add("--output", type=Path, default=RESULTS, help="directory of the result files (default: benchmarks/results/gpu)")
    add("--minutes", type=float, default=9.0, help="end of the run (default: 9)")
    add("--part", action="append", metavar="NAME", help=f"run this part; repeatable: {', '.join(names)}")
    add("--size", choices=["full", "tiny"], default="full", help="tiny: for tests on a CPU (default: full)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
