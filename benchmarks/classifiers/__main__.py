"""Compares `pooled` with fastText on labelled texts, and writes the table of docs/speed.md.

python -m benchmarks.classifiers measure       what benchmarks/results/classifiers.json lacks; half an hour of one core
python -m benchmarks.classifiers table         Markdown, to stdout
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.classifiers.measure import measure
from benchmarks.classifiers.table import RESULTS, table
from benchmarks.workload import SHARED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.classifiers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["measure", "table"])
    parser.add_argument("--data", type=Path, default=SHARED, help="directory with labels, web and vocab")
    parser.add_argument("--task", action="append", default=[], help="one of the tasks; repeatable; default: all")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results")
    options = parser.parse_args(arguments)
    if options.command == "table":
        sys.stdout.write(table(json.loads(options.results.read_text(encoding="utf-8"))))
        return 0

    def save(results: dict[str, Any]) -> None:
        options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    known = json.loads(options.results.read_text(encoding="utf-8")) if options.results.exists() else {}
    log = partial(print, flush=True)
    save(measure(options.data, known, log=log, save=save, chosen=set(options.task)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
