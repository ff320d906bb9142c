"""Measures how Colophon's time changes with the number of workers and the size of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.contestants import Contestant
from benchmarks.job import Job
from benchmarks.machine import machine
from benchmarks.summary import Spread, interleaved, line_fit
from benchmarks.timed import done, peak_bytes
from benchmarks.whole_job import described_input
from benchmarks.workload import Workload, text_bytes_of

SIZES_MEGABYTES = (25.0, 50.0, 100.0, 200.0, 400.0)
METHOD = (
    "The whole job in new processes, interleaved by rounds. The input of each size is whole files of the input, linked "
    "again under other names when they run out: the tokenizer then sees texts again. Memory is measured as in the "
    "whole job, in separate runs. The line is fitted by least squares "
    "over all runs of all sizes: seconds = start + seconds_per_megabyte x megabytes."
)


def expected_seconds(contestant: Contestant, workload: Workload, sizes: Sequence[float], *, rounds: int) -> float:
    """Estimate how long `run_scaling` takes."""
    runs = len(sizes) + 3
    megabytes = sum(sizes) + 3 * workload.text_bytes / 1e6
    return (rounds + 1) * (runs * contestant.start_seconds + megabytes / contestant.megabytes_per_second)


def run_scaling(
    contestant: Contestant,
    workload: Workload,
    files: Sequence[Path],
    *,
    rounds: int,
    work: Path,
    log: Callable[[str], None],
    sizes: Sequence[float] = SIZES_MEGABYTES,
) -> dict[str, Any]:
    """Run all sizes; return the content of `scaling.json`.

    Args:
        contestant: Colophon.
        workload: the job that one and more workers do.
        files: the whole input; each size is whole files of it.
        rounds: number of repetitions.
        work: directory for outputs and logs.
        log: receives a line for each run.
        sizes: amounts of text in MB.
    """
    log(f"expected: about {expected_seconds(contestant, workload, sizes, rounds=rounds) / 60:.0f} minutes")
    jobs: dict[str, tuple[Job, float]] = {}
    for workers in sorted({1, workload.job.workers}):
        jobs[f"{workers} workers"] = workload.job.at(work, workers=workers), workload.text_bytes / 1e6
    for size in sizes:
        links, megabytes = sized(files, size, directory=work / "sizes" / f"{size:g}")
        jobs[f"{size:g} MB"] = workload.job.at(work, files=tuple(map(str, links))), megabytes
    with done(contestant, workload.start, work=work):
        log("caches are filled")
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number, name in interleaved(list(jobs), rounds=rounds):
        with done(contestant, jobs[name][0], work=work) as run:
            seconds[name].append(run.measured.wall_seconds)
        log(f"round {number + 1}, {name} ({jobs[name][1]:.1f} MB): {seconds[name][-1]:.1f} s")
    peaks = {name: peak_bytes(contestant, job, work=work) for name, (job, _) in jobs.items()}
    return {
        "format": 1,
        "method": METHOD,
        "machine": machine(),
        "rounds": rounds,
        "input": described_input(workload),
        "workers": _workers(seconds, peaks, workload),
        "sizes": _sizes(jobs, seconds, peaks, sizes),
    }


def sized(files: Sequence[Path], megabytes: float, *, directory: Path) -> tuple[list[Path], float]:
    """Link as many files as come nearest to `megabytes` of text, at least one; files are repeated when they run out.

    Returns:
        The links under `directory`, and the amount of their text in MB.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.parquet"):
        old.unlink()
    own_sizes = [text_bytes_of(file) / 1e6 for file in files]
    links: list[Path] = []
    total = 0.0
    for number in count():
        file, more = files[number % len(files)], own_sizes[number % len(files)]
        if links and abs(total + more - megabytes) >= abs(total - megabytes):
            return links, total
        links.append(directory / f"{number // len(files)}-{file.name}")
        links[-1].symlink_to(file.absolute())
        total += more
    raise AssertionError("count() does not end")


def _workers(
    seconds: dict[str, list[float]], peaks: dict[str, int | None], workload: Workload
) -> dict[str, dict[str, Any] | float]:
    found: dict[str, dict[str, Any] | float] = {}
    for workers in sorted({1, workload.job.workers}):
        name = f"{workers} workers"
        found[str(workers)] = _measured(seconds[name], peaks[name])
    one, all_of_them = (Spread.of(seconds[f"{n} workers"]).median for n in (1, workload.job.workers))
    found["times_faster"] = float(f"{one / all_of_them:.4g}")
    return found


def _sizes(
    jobs: dict[str, tuple[Job, float]],
    seconds: dict[str, list[float]],
    peaks: dict[str, int | None],
    sizes: Sequence[float],
) -> dict[str, Any]:
    names = [f"{size:g} MB" for size in sizes]
    points = [(jobs[name][1], value) for name in names for value in seconds[name]]
    start, slope, r_squared = line_fit([x for x, _ in points], [y for _, y in points])
    return {
        "runs": [{"megabytes": round(jobs[name][1], 3), **_measured(seconds[name], peaks[name])} for name in names],
        "line": {
            "start_seconds": float(f"{start:.4g}"),
            "seconds_per_megabyte": float(f"{slope:.4g}"),
            "megabytes_per_second": float(f"{1 / slope:.4g}") if slope > 0 else None,
            "r_squared": round(r_squared, 4),
        },
    }


def _measured(seconds: Sequence[float], peak: int | None) -> dict[str, Any]:
    return {"wall_seconds": Spread.of(seconds).as_dict(), "peak_pss_bytes": peak}
