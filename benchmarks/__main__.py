"""The whole job against peers, each part alone, and scaling: `python -m benchmarks` runs all three.

python -m benchmarks                      everything (what `make bench` runs)
python -m benchmarks whole-job            Colophon, datatrove, Ray Data, a hand-written script, Dolma
python -m benchmarks parts                each stage alone, and the fraction of the projected limit
python -m benchmarks scaling              1 and more workers, 25 to 400 MB of text
python -m benchmarks table                Markdown tables of the results
python -m benchmarks chart                the bar chart of whole_job.json
python -m benchmarks --quick              a smoke run: little text, small models
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from benchmarks import show
from benchmarks.contestants import COLOPHON, INSTALL, Contestant, contestants, install_dolma
from benchmarks.outputs import OutputDiffersError
from benchmarks.parts import SCORE_MEGABYTES, run_parts
from benchmarks.running import CommandError
from benchmarks.scaling import SIZES_MEGABYTES, run_scaling
from benchmarks.vocabulary import VocabularyError
from benchmarks.whole_job import run_whole_job
from benchmarks.workload import (
    QUICK_DOCUMENTS,
    REAL,
    SMALL,
    WorkloadError,
    find_input,
    make_workload,
    repeated,
    within,
)

RESULTS = Path(__file__).parent / "results"
SECTIONS = ("whole-job", "parts", "scaling")
QUICK_SIZES = (1.0, 2.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 after an error."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "table":
            _say(show.tables(options.results))
        elif options.command == "install-dolma":
            install_dolma(options.work)
        elif options.command == "chart":
            _say(f"wrote {show.draw(options.results)}")
        else:
            _run(options)
    except (CalledProcessError, CommandError, OutputDiffersError, VocabularyError, WorkloadError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    known = contestants(work=options.work, dolma_python=options.dolma_python)
    name, all_files = find_input(options.input, work=options.work, quick=options.quick, log=_say)
    files = within(all_files, options.max_mb)
    if options.repeat_to_mb is not None:
        files = repeated(files, options.repeat_to_mb, directory=options.work / "repeated")
    workload = make_workload(
        name,
        files,
        all_files=all_files,
        work=options.work,
        workers=options.workers,
        sizes=SMALL if options.quick else REAL,
        models=options.models,
        log=_say,
    )
    chosen = _chosen(known, options.only)
    common: dict[str, Any] = {"rounds": options.rounds, "work": options.work, "log": _say}
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "whole-job": lambda: run_whole_job(chosen, workload, **common),
        "parts": lambda: run_parts(known[COLOPHON], workload, score_megabytes=options.score_mb, **common),
        "scaling": lambda: run_scaling(
            known[COLOPHON], workload, all_files, sizes=QUICK_SIZES if options.quick else SIZES_MEGABYTES, **common
        ),
    }
    for section in SECTIONS if options.command == "all" else [options.command]:
        _say(f"\n== {section}: {workload.text_bytes / 1e6:.1f} MB of {name}, {workload.documents:,} documents ==")
        _write(options.results / _file_name(section, repeated=options.repeat_to_mb is not None), sections[section]())
    _say(f"\n{show.tables(options.results)}")
    if (options.results / show.WHOLE_JOB).is_file():
        _draw(options.results)


def _file_name(section: str, *, repeated: bool) -> str:
    """The file of a section's results. The whole job on a repeated input has one of its own."""
    name = f"{section.replace('-', '_')}.json"
    return show.REPEATED if repeated and name == show.WHOLE_JOB else name


def _chosen(known: dict[str, Contestant], only: Sequence[str]) -> dict[str, Contestant]:
    if unknown := [name for name in only if name not in known]:
        raise WorkloadError(f"no contestant {', '.join(unknown)}; available: {', '.join(known)}")
    return {name: contestant for name, contestant in known.items() if not only or name in only}


def _draw(results: Path) -> None:
    try:
        _say(f"wrote {show.draw(results)}")
    except ImportError:
        _say(f"no chart: matplotlib is not installed ({INSTALL})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("command", choices=[*SECTIONS, "all", "table", "chart", "install-dolma"], nargs="?", default="all")
    add(
        "--input",
        action="append",
        default=[],
        metavar="PATH",
        help="Parquet files or directories with id, text, url (and topic, quality); "
        "default: ../shared/data/web, else the demo's corpus",
    )
    add(
        "--max-mb",
        type=float,
        metavar="MB",
        help="use whole files of the input up to this much text (default: all of it)",
    )
    add(
        "--repeat-to-mb",
        type=float,
        metavar="MB",
        help="repeat the input under other names, with ids of its own, up to this much text (default: no copies)",
    )
    add("--work", type=_absolute, default=_absolute("out/bench"), help="models, caches and logs (default: out/bench)")
    add("--results", type=Path, default=RESULTS, help="directory for JSON files and the chart")
    add("--models", type=_absolute, help="directory with quality.bin and topic.bin (default: train them)")
    add("--rounds", type=int, default=3)
    add("--workers", type=int, default=2)
    add("--only", action="append", default=[], metavar="NAME", help="contestant of whole-job; repeatable")
    add("--dolma-python", metavar="PATH", help="interpreter of a different environment with Dolma")
    add("--score-mb", type=float, default=SCORE_MEGABYTES, help="text that `parts` scores, also by the library")
    add("--quick", action="store_true", help=f"smoke run with {QUICK_DOCUMENTS} documents and small models")
    return parser


def _absolute(path: str) -> Path:
    return Path(path).absolute()


def _write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _say(f"wrote {path}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
