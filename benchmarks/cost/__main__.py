"""Measures what a run costs, and writes the page of costs from the results.

python -m benchmarks.cost measure         into benchmarks/results/cost.json; a few minutes
python -m benchmarks.cost page            docs/cost.md, to stdout
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cost.estimate import COST, RESULTS
from benchmarks.cost.measure import measure
from benchmarks.cost.page import page
from benchmarks.workload import find_input


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["measure", "page"])
    parser.add_argument("--input", action="append", default=[], help="Parquet files or directories with id, text, url")
    parser.add_argument("--files", type=int, default=3, help="files of the input to run on")
    parser.add_argument("--work", type=Path, default=Path("out/bench/cost"), help="directory to write to")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory of the results")
    options = parser.parse_args(arguments)
    if options.command == "page":
        sys.stdout.write(page(options.results))
        return 0
    _, files = find_input(options.input, work=options.work.parent, quick=False, log=print)
    measured = measure(files[: options.files], work=options.work, log=print)
    (options.results / COST).write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
