"""Measures each part of the job alone, and the fraction of the parts' limit that the whole job reaches."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestants import Contestant
from benchmarks.machine import machine
from benchmarks.probes import PROBES
from benchmarks.running import run_measured
from benchmarks.summary import Spread, interleaved
from benchmarks.timed import done
from benchmarks.whole_job import colophon_steps, described_input
from benchmarks.workload import ROOT, Workload

SCORE_MEGABYTES = 30.0
_SECONDS_A_MEGABYTE = {
    "read": 0.02,
    "score": 0.6,
    "tokenize_engine": 0.06,
    "tokenize_tiktoken": 0.25,
    "write": 0.15,
    "pack": 0.15,
}
_ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    **dict.fromkeys(("RAYON_NUM_THREADS", "POLARS_MAX_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
}
_COLOPHON = "whole"
METHOD = (
    "Every part runs alone in a new process on one thread, on the whole input; parts and the whole job alternate by "
    "rounds. Scoring is measured on the first megabytes only: kernel, library and annotators alternate every 1,024 "
    "documents. Tokenizers have not seen the text before. tiktoken and the library get ready Python strings. "
    "The projected limit is the time of reading, scoring by the kernel, tokenizing and writing, each once over the "
    "input at its median speed, one after the other, divided by the number of workers. `with_start` is that time "
    "divided by the wall time of the whole job; `without_start` by the difference of the whole job and a small job, "
    "both for the text by which they differ; `pass_alone` by the time of the pass, including the loading of models. "
    "Shares are parts of the workers' time by step; reading and writing have their own threads and overlap."
)


def expected_seconds(workload: Workload, *, rounds: int, score_megabytes: float, contestant: Contestant) -> float:
    """Estimate how long `run_parts` takes."""
    size = workload.text_bytes / 1e6
    probes = sum(s * (min(size, score_megabytes) if n == "score" else size) for n, s in _SECONDS_A_MEGABYTE.items())
    whole = size / contestant.megabytes_per_second + 2 * contestant.start_seconds
    return rounds * (probes + whole + 30) + contestant.start_seconds


def run_parts(
    contestant: Contestant,
    workload: Workload,
    *,
    rounds: int,
    work: Path,
    log: Callable[[str], None],
    score_megabytes: float = SCORE_MEGABYTES,
) -> dict[str, Any]:
    """Run all parts; return the content of `parts.json`.

    Args:
        contestant: Colophon.
        workload: the job.
        rounds: number of repetitions.
        work: directory for outputs and logs.
        log: receives a line for each part.
        score_megabytes: amount of text to score; the library is slow.
    """
    seconds = expected_seconds(workload, rounds=rounds, score_megabytes=score_megabytes, contestant=contestant)
    log(f"expected: about {seconds / 60:.0f} minutes")
    with done(contestant, workload.start, work=work):
        log("caches are filled")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in (*PROBES, _COLOPHON)}
    for number, name in interleaved(list(results), rounds=rounds):
        if name == _COLOPHON:
            result = _whole(contestant, workload, work=work)
        else:
            more = [str(score_megabytes)] if name == "score" else []
            result = probe(name, workload, *more, work=work, env=contestant.env)
        results[name].append(result)
        log(f"round {number + 1}, {name}: {_in_words(result)}")
    return _summary(results, workload, rounds=rounds)


def probe(name: str, workload: Workload, *more: str, work: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """Run `benchmarks.probes` for one part in a new process; return its result."""
    own = workload.job.at(work / "output" / f"probe-{name}")
    job = own.save(Path(f"{own.output}.json"))
    log = work / "logs" / f"probe-{name}.log"
    run_measured(
        [sys.executable, "-m", "benchmarks.probes", name, str(job), *more],
        log=log,
        env={**_ONE_THREAD, **env},
        cwd=ROOT,
    )
    result: dict[str, Any] = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    return result


def _whole(contestant: Contestant, workload: Workload, *, work: Path) -> dict[str, Any]:
    with done(contestant, workload.start, work=work) as small:
        start = small.measured.wall_seconds
    with done(contestant, workload.job, work=work) as whole:
        return {"seconds": {"start": start, "wall": whole.measured.wall_seconds}, "steps": colophon_steps(whole)}


def _summary(results: Mapping[str, list[dict[str, Any]]], workload: Workload, *, rounds: int) -> dict[str, Any]:
    speeds = part_speeds(results)
    medians = {name: Spread.of(values).median for name, values in speeds.items()}
    steps = [run["steps"] for run in results[_COLOPHON]]
    whole = {name: Spread.of([run["seconds"][name] for run in results[_COLOPHON]]) for name in ("wall", "start")}
    return {
        "format": 1,
        "method": METHOD,
        "machine": machine(),
        "workers": workload.job.workers,
        "rounds": rounds,
        "input": described_input(workload),
        "tokenizer": results["tokenize_engine"][0]["engine"],
        "megabytes_per_second": {name: Spread.of(values).as_dict() for name, values in speeds.items()},
        "ratios": {
            "kernel_to_library": _ratio(speeds["kernel"], speeds["library"]),
            "annotate_to_library": _ratio(speeds["annotate"], speeds["library"]),
            "tokenize_to_tiktoken": _ratio(speeds["tokenize"], speeds["tiktoken"]),
        },
        "pack_million_tokens_per_second": pack_speeds(results["pack"]),
        "load_seconds": {
            name: Spread.of([run["seconds"][step] for run in results[part]]).as_dict()
            for name, part, step in (
                ("kernel_models", "score", "load"),
                ("library_models", "score", "library_load"),
                ("tokenizer", "tokenize_engine", "load"),
                ("tiktoken", "tokenize_tiktoken", "load"),
            )
        },
        "whole_job_seconds": {
            name: Spread.of([run["seconds"][name] for run in results[_COLOPHON]]).as_dict()
            for name in ("wall", "start")
        },
        "projected_limit": projected_limit(
            medians,
            workload,
            wall=whole["wall"].median,
            start=whole["start"].median,
            of_the_pass=Spread.of([sum(p["seconds"] for p in step["passes"].values()) for step in steps]).median,
        ),
        "shares": shares(steps),
    }


def part_speeds(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[float]]:
    """Return the MB/s of text of each part, one value per round."""
    timed = {
        "read": ("read", ("read",)),
        "kernel": ("score", ("kernel",)),
        "annotate": ("score", ("annotators",)),
        "library": ("score", ("library",)),
        "tokenize": ("tokenize_engine", ("tokenize",)),
        "tiktoken": ("tokenize_tiktoken", ("tokenize",)),
        "write": ("write", ("annotations", "tokens")),
    }
    return {
        name: [run["text_bytes"] / 1e6 / sum(run["seconds"][step] for step in steps) for run in results[part]]
        for name, (part, steps) in timed.items()
    }


def pack_speeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return millions of text tokens per second by layout: arranging alone, and with its metadata."""
    found = {}
    for layout in runs[0]["packed_tokens"]:
        alone = [run["tokens"] / 1e6 / run["seconds"][layout] for run in runs]
        both = [run["tokens"] / 1e6 / (run["seconds"][layout] + run["seconds"][f"{layout}_metadata"]) for run in runs]
        found[layout] = {"pack": Spread.of(alone).as_dict(), "with_metadata": Spread.of(both).as_dict()}
    return found


def projected_limit(
    speeds: Mapping[str, float], workload: Workload, *, wall: float, start: float, of_the_pass: float
) -> dict[str, float]:
    """Return the limit that the parts set, and the fractions of it that the whole job reaches; see `METHOD`.

    Args:
        speeds: MB/s of `read`, `kernel`, `tokenize` and `write` alone on one core.
        workload: the job.
        wall: seconds of the whole job.
        start: seconds of the small job.
        of_the_pass: seconds of annotating and tokenizing within the whole job.
    """
    seconds_a_megabyte = sum(1 / speeds[part] for part in ("read", "kernel", "tokenize", "write"))
    seconds_a_megabyte /= workload.job.workers
    megabytes, small = workload.text_bytes / 1e6, workload.start_text_bytes / 1e6
    limit = megabytes * seconds_a_megabyte
    found = {
        "megabytes_per_second": 1 / seconds_a_megabyte,
        "seconds": limit,
        "with_start": limit / wall,
        "pass_alone": limit / of_the_pass,
    }
    if wall > start:
        found["without_start"] = (megabytes - small) * seconds_a_megabyte / (wall - start)
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def shares(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the shares of the steps in the workers' time, and the seconds of loading models and vocabulary."""
    names = {"reading": "read", "scoring": "annotate", "tokenizing": "tokenize", "writing": "write", "loading": "load"}
    done = [one["worker_seconds"] for run in steps for one in run["passes"].values()]
    taken = {name: sum(seconds[step] for seconds in done) for name, step in names.items()}
    loading = taken.pop("loading") / max(len(steps), 1)
    total = max(sum(taken.values()), 1e-9)
    return {**{name: round(s / total, 4) for name, s in taken.items()}, "loading_seconds": round(loading, 3)}


def _ratio(faster: Sequence[float], slower: Sequence[float]) -> dict[str, Any]:
    """Return the ratio of medians, and of every round."""
    ratio = Spread.of(faster).median / Spread.of(slower).median
    return {"ratio": float(f"{ratio:.4g}"), **Spread.of([a / b for a, b in zip(faster, slower, strict=True)]).as_dict()}


def _in_words(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {seconds:.3g} s" for name, seconds in result["seconds"].items())
