"""The whole job, all contestants on the same input, interleaved by rounds; their outputs are checked to be the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa

from benchmarks.contestants import COLOPHON, PARTITION_BYTES, Contestant
from benchmarks.machine import machine
from benchmarks.outputs import TOLERANCE, Expected, compare, expected_of
from benchmarks.running import CommandError
from benchmarks.summary import Spread, interleaved, ratios
from benchmarks.timed import Done, done, peak_bytes
from benchmarks.workload import Workload

Log = Callable[[str], None]
METHOD = (
    "Each round runs every contestant once, in a new process with an empty output directory and the same number of "
    "workers: first on a small file for each worker (its wall time is `start`), then on the input. Every round begins "
    "with a different contestant. Before the first round each contestant does the small job once (`first_run`): "
    "Colophon caches its multiplied models and compiled code, datatrove copies model files, all files are read once. "
    "Wall time is that of the command, from its start to its end. After the rounds each contestant does the job once "
    "more to measure its memory: the peak of the sum of proportional set sizes of its processes, found by samples that "
    "slow it. The outputs of every run are compared: the same documents, "
    f"the same token ids, probabilities within {TOLERANCE:g} after the 1e-5 that the fastText library adds."
)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One contestant in one round."""

    start_seconds: float
    wall_seconds: float
    steps: dict[str, Any] = field(default_factory=dict)
    """The times in Colophon's own report."""


def expected_seconds(chosen: Mapping[str, Contestant], workload: Workload, *, rounds: int) -> float:
    """Estimate how long `run_whole_job` takes."""
    work = sum(workload.text_bytes / 1e6 / c.megabytes_per_second for c in chosen.values())
    start = sum(c.start_seconds for c in chosen.values())
    return rounds * (work + 2 * start) + work + 4 * start


def run_whole_job(
    chosen: Mapping[str, Contestant], workload: Workload, *, rounds: int, work: Path, log: Log
) -> dict[str, Any]:
    """Run all contestants and compare their outputs; return the content of `whole_job.json`.

    Args:
        chosen: the contestants. One whose first run fails is excluded, with the reason.
        workload: the job.
        rounds: number of repetitions.
        work: directory for outputs and logs.
        log: receives a line for each run.

    Raises:
        OutputDiffersError: the output of a contestant differs.
        CommandError: a contestant failed later than in its first run.
    """
    log(f"expected: about {expected_seconds(chosen, workload, rounds=rounds) / 60:.0f} minutes")
    shutil.rmtree(work / "cache" / "colophon", ignore_errors=True)
    expected = expected_of(workload.job)
    first, left_out = _first_runs(chosen, workload, work=work, log=log)
    names = [name for name in chosen if name in first]
    runs: dict[str, list[_Run]] = {name: [] for name in names}
    judge = _Judge(expected)
    for number, name in interleaved(names, rounds=rounds):
        run = _one(chosen[name], workload, judge=judge, work=work)
        runs[name].append(run)
        log(_line(number, chosen[name], run, workload))
    peaks: dict[str, int | None] = {}
    for name in names:
        peaks[name] = peak = peak_bytes(chosen[name], workload.job, work=work)
        log(f"memory, {chosen[name].title}: {'unknown' if peak is None else f'{peak / 1e9:.2f} GB'}")
    return {
        "format": 1,
        "method": METHOD,
        "machine": machine(),
        "workers": workload.job.workers,
        "rounds": rounds,
        "input": described_input(workload),
        "colophon": {"partition_bytes": PARTITION_BYTES},
        "contestants": {
            name: {
                "title": chosen[name].title,
                "versions": chosen[name].versions(),
                "first_run_seconds": round(first[name], 2),
                **_summary(runs[name], workload),
                "peak_pss_bytes": peaks[name],
                "agreement": judge.found[name],
            }
            for name in names
        },
        **_all_ratios(runs, workload),
        "left_out": left_out,
        "steps": [run.steps for run in runs.get(COLOPHON, [])],
    }


def described_input(workload: Workload) -> dict[str, Any]:
    """Return the description of the input for results."""
    return {
        "name": workload.name,
        "files": len(workload.job.files),
        "documents": workload.documents,
        "text_bytes": workload.text_bytes,
        "start_text_bytes": workload.start_text_bytes,
        "vocabulary": {"ids": workload.job.vocabulary.num_ids, "pattern": workload.job.vocabulary.pattern_name},
        "classifiers": list(workload.models),
    }


class _Judge:
    """Compares every output with the first one."""

    def __init__(self, expected: Expected) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self._expected = expected
        self._reference: tuple[pa.Table, Contestant] | None = None

    def check(self, finished: Done) -> None:
        contestant, output = finished.contestant, finished.output()
        if self._reference is None:
            self._reference = output, contestant
        reference, by = self._reference
        agreement = compare(reference, output, expected=self._expected, strips=contestant.strips or by.strips)
        self.found[contestant.name] = {"compared_with": by.name, **agreement.as_dict()}


def _first_runs(
    chosen: Mapping[str, Contestant], workload: Workload, *, work: Path, log: Log
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the seconds of each contestant's first run, and the reasons why others are excluded."""
    seconds: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name, contestant in chosen.items():
        missing = contestant.missing()
        if missing is None:
            try:
                with done(contestant, workload.start, work=work) as first:
                    seconds[name] = first.measured.wall_seconds
                    log(f"first run, {contestant.title}: {seconds[name]:.1f} s")
            except CommandError as error:
                log(str(error))
                missing = f"failed in its first run: {str(error).splitlines()[-1]}"
        if missing is not None:
            left_out[name] = missing
            log(f"left out, {contestant.title}: {missing}")
    return seconds, left_out


def _one(contestant: Contestant, workload: Workload, *, judge: _Judge, work: Path) -> _Run:
    with done(contestant, workload.start, work=work) as small:
        start_seconds = small.measured.wall_seconds
    with done(contestant, workload.job, work=work) as whole:
        judge.check(whole)
        return _Run(
            start_seconds=start_seconds,
            wall_seconds=whole.measured.wall_seconds,
            steps=colophon_steps(whole) if contestant.name == COLOPHON else {},
        )


def colophon_steps(finished: Done) -> dict[str, Any]:
    """Return start, passes and notes of `report/run.json`."""
    report = json.loads(Path(finished.job.output, "report", "run.json").read_text(encoding="utf-8"))
    return {key: report[key] for key in ("start", "passes", "notes")}


def _summary(runs: list[_Run], workload: Workload) -> dict[str, Any]:
    walls = [run.wall_seconds for run in runs]
    megabytes = workload.text_bytes / 1e6
    alone = _seconds_without_start(runs, workload)
    return {
        "wall_seconds": Spread.of(walls).as_dict(),
        "start_seconds": Spread.of([run.start_seconds for run in runs]).as_dict(),
        "megabytes_per_second": Spread.of([megabytes / wall for wall in walls]).as_dict(),
        "documents_per_second": Spread.of([workload.documents / wall for wall in walls]).as_dict(),
        "megabytes_per_second_without_start": None if alone is None else float(f"{megabytes / alone:.4g}"),
    }


def _seconds_without_start(runs: list[_Run], workload: Workload) -> float | None:
    """Return the seconds without the start: the difference of the two jobs' medians, scaled to the whole input.

    None if noise exceeds the difference.
    """
    wall, start = (median(values) for values in zip(*((r.wall_seconds, r.start_seconds) for r in runs), strict=True))
    scale = workload.text_bytes / max(workload.text_bytes - workload.start_text_bytes, 1)
    return (wall - start) * scale if wall > start else None


def _all_ratios(runs: Mapping[str, list[_Run]], workload: Workload) -> dict[str, Any]:
    if COLOPHON not in runs:
        return {"ratios": {}, "ratio_details": {}, "ratios_without_start": {}}
    details = ratios({name: Spread.of([run.wall_seconds for run in of]) for name, of in runs.items()}, of=COLOPHON)
    alone = {name: _seconds_without_start(of, workload) for name, of in runs.items()}
    ours = alone.pop(COLOPHON)
    return {
        "ratios": {name: detail["ratio"] for name, detail in details.items()},
        "ratio_details": details,
        "ratios_without_start": {
            name: float(f"{theirs / ours:.4g}") for name, theirs in alone.items() if ours and theirs is not None
        },
    }


def _line(number: int, contestant: Contestant, run: _Run, workload: Workload) -> str:
    speed = workload.text_bytes / 1e6 / run.wall_seconds
    return (
        f"round {number + 1}, {contestant.title}: {run.wall_seconds:.1f} s ({speed:.2f} MB/s), "
        f"small job {run.start_seconds:.1f} s"
    )
