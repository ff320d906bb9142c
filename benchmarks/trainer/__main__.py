"""Measures tokens per second, MFU and memory of the presets, beside a plain loop and Hugging Face's Trainer.

    python -m benchmarks.trainer                    the presets for this machine's device
    python -m benchmarks.trainer --preset 350m --sequence-length 4096 --num-ids 131136 --batch-size 8
    python -m benchmarks.trainer table              Markdown of the results

Every contestant starts from the same weights and reads the same batches, and their losses must agree.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import in_words, machine
from benchmarks.summary import Spread, interleaved, ratios
from benchmarks.trainer.job import TrainingJob, write_job

RESULTS = Path(__file__).parents[1] / "results" / "trainer.json"
HUGGING_FACE = "Hugging Face Trainer"
CONTESTANTS = {
    "colophon": ["benchmarks.trainer.ours", "plain"],
    "colophon, documents masked": ["benchmarks.trainer.ours", "documents"],
    "plain loop": ["benchmarks.trainer.plain_loop"],
    HUGGING_FACE: ["benchmarks.trainer.hugging_face"],
}
_SAME_ARITHMETIC = ("colophon", "plain loop", HUGGING_FACE)
_CPU = [("10m", 8_192, 512, 4, 2)]
_CUDA = [
    (preset, num_ids, length, 32_768 * 4 // length, 32_768 // length)
    for preset in ("124m", "350m", "1.5b")
    for num_ids in (50_304, 131_136)
    for length in (2048, 4096)
]
"""Preset, ids, sequence length, sequences a step, sequences at once."""


class ContestantError(RuntimeError):
    """A contestant's process failed; the message is its last line."""


class LossesDifferError(RuntimeError):
    """The losses of a contestant differ: it trained a different model, or on different batches."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    options = _parser().parse_args(arguments)
    if options.command == "run":
        results = _read()
        for job in _jobs(options):
            key = f"{job.device} {job.preset} {job.num_ids} {job.sequence_length}"
            print(f"== {key}", flush=True)
            results[key] = run_job(job, rounds=options.rounds, contestants=_contestants(options))
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(table(_read())))
    return 0


def run_job(job: TrainingJob, *, rounds: int, contestants: Sequence[str]) -> dict[str, Any]:
    """Run all contestants, interleaved; return an entry of `trainer.json`. Failed contestants are skipped."""
    names = [name for name in contestants if name != HUGGING_FACE or importlib.util.find_spec("transformers")]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="colophon-bench-") as work:
        path = write_job(replace(job, work=work))
        for number, name in interleaved(names, rounds=rounds):
            if name in failed:
                continue
            try:
                found[name].append(run_contestant(CONTESTANTS[name], path))
            except ContestantError as error:
                failed[name] = str(error)
                print(f"round {number + 1}, {name}: failed: {error}", flush=True)
                continue
            speed = job.tokens_per_step / Spread.of(found[name][-1]["seconds"]).median
            print(f"round {number + 1}, {name}: {speed:,.0f} tokens/s", flush=True)
    if "colophon" in failed:
        raise ContestantError(f"colophon: {failed['colophon']}")
    found = {name: runs for name, runs in found.items() if name not in failed}
    check_losses(found, job)
    seconds = {name: Spread.of([Spread.of(run["seconds"]).median for run in runs]) for name, runs in found.items()}
    return {
        "format": 1,
        "machine": machine() | ({"gpu": torch.cuda.get_device_name()} if job.device == "cuda" else {}),
        "torch": str(torch.__version__),
        "job": {key: value for key, value in vars(job).items() if key != "work"},
        "rounds": rounds,
        "contestants": {
            name: {
                "seconds_per_step": seconds[name].as_dict(),
                "tokens_per_second": job.tokens_per_step / seconds[name].median,
                "memory_bytes": max(run["memory_bytes"] for run in runs),
                "mfu": runs[0].get("mfu"),
                "data_wait": runs[0].get("data_wait"),
            }
            for name, runs in found.items()
        },
        "failed": failed,
        "ratios": ratios(seconds, of="colophon"),
    }


def table(results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of Markdown tables."""
    for found in results.values():
        job = found["job"]
        where = found["machine"].get("gpu") or in_words(found["machine"])
        yield (
            f"{job['preset']}, {job['num_ids']:,} ids, {job['batch_size']} sequences of {job['sequence_length']} a "
            f"step, {job['dtype']}, {where}; torch {found['torch']}; median of {found['rounds']} interleaved rounds."
        )
        yield ""
        yield "|  | tokens/s | MFU | waits for data | memory | Colophon is faster |"
        yield "| --- | ---: | ---: | ---: | ---: | ---: |"
        for name, one in found["contestants"].items():
            ratio = found["ratios"].get(name)
            cells = [
                name,
                _speeds(one["seconds_per_step"], tokens=job["batch_size"] * job["sequence_length"]),
                "-" if one["mfu"] is None else f"{one['mfu']:.1%}",
                "-" if one["data_wait"] is None else f"{one['data_wait']:.2%}",
                f"{one['memory_bytes'] / 1e9:.2f} GB",
                "" if ratio is None else f"{ratio['ratio']:.2f} x",
            ]
            yield f"| {' | '.join(cells)} |"
        for name, why in found.get("failed", {}).items():
            yield f"| {name} | failed: {why} | | | | |"
        yield ""


def _speeds(seconds: dict[str, float], *, tokens: int) -> str:
    """Return tokens per second: median, lowest and highest of the rounds."""
    median, lowest, highest = (tokens / seconds[key] for key in ("median", "highest", "lowest"))
    return f"{median:,.0f} ({lowest:,.0f}–{highest:,.0f})"


def run_contestant(module: Sequence[str], job: Path) -> dict[str, Any]:
    """Run a contestant, a module and its arguments, in a new process; return what it reports.

    Raises:
        ContestantError: it failed.
    """
    name, *arguments = module
    command = [sys.executable, "-m", name, str(job), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ContestantError((ended.stderr.splitlines() or [f"exit code {ended.returncode}"])[-1])
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def check_losses(found: dict[str, list[dict[str, Any]]], job: TrainingJob) -> None:
    """Compare the losses of contestants with the same arithmetic.

    Raises:
        LossesDifferError: they differ by more than the type of the numbers explains.
    """
    tolerance = 2e-2 if job.dtype == "bfloat16" else 1e-3
    expected = found["colophon"][0]["losses"]
    for name in set(found) & set(_SAME_ARITHMETIC):
        for step, (a, b) in enumerate(zip(expected, found[name][0]["losses"], strict=True), 1):
            if abs(a - b) > tolerance * a:
                raise LossesDifferError(f"{name}: loss {b:.4f} at step {step}, Colophon has {a:.4f}")


def _contestants(options: argparse.Namespace) -> list[str]:
    return list(dict.fromkeys(["colophon", *options.contestant])) if options.contestant else list(CONTESTANTS)


def _jobs(options: argparse.Namespace) -> Iterator[TrainingJob]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = _CUDA if device == "cuda" else _CPU
    if options.preset:
        chosen = [
            (options.preset, options.num_ids, options.sequence_length, options.batch_size, options.micro_batch_size)
        ]
    for preset, num_ids, length, batch_size, micro in chosen:
        yield TrainingJob(
            preset=preset,
            num_ids=num_ids,
            sequence_length=length,
            batch_size=batch_size,
            micro_batch_size=micro,
            steps=options.steps,
            warmup_steps=options.steps // 4,
            device=device,
            dtype="bfloat16" if device == "cuda" else "float32",
            work="",
        )


def _read() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trainer", description=__doc__, formatter_class=_Formatter
    )
    add = parser.add_argument
    add("command", choices=["run", "table"], nargs="?", default="run")
    add("--preset", help="model to train (default: those for this machine)")
    add("--num-ids", type=int, default=50_304, help="vocabulary; a multiple of 64, otherwise padding costs time too")
    add("--sequence-length", type=int, default=2048, help="tokens")
    add("--batch-size", type=int, default=8, help="sequences per step")
    add("--micro-batch-size", type=int, default=8, help="sequences at once")
    add("--steps", type=int, default=16, help="steps; the first quarter is not timed")
    add("--rounds", type=int, default=3, help="repetitions of all contestants")
    add(
        "--contestant",
        action="append",
        choices=list(CONTESTANTS),
        help="contestant beside Colophon; repeatable",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
