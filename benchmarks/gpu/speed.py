"""Part: tokens/s, MFU and memory of one configuration: Colophon, with and without documents masked, and a plain loop.

    python -m benchmarks.gpu.speed --output FILE --name speed-124m-50304-2048

Each contestant is a process of its own; the first to run again in a second round finds its compiled kernels cached.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.arguments import part_parser
from benchmarks.gpu.hardware import device_of_this_machine
from benchmarks.gpu.plan import Configuration, Size, configurations
from benchmarks.gpu.records import Write, appender
from benchmarks.summary import Spread
from benchmarks.trainer.__main__ import ContestantError, check_losses, run_contestant
from benchmarks.trainer.job import TrainingJob, write_job

CONTESTANTS: dict[str, list[str]] = {
    "colophon": ["benchmarks.trainer.ours", "documents"],
    "plain loop": ["benchmarks.trainer.plain_loop"],
    "colophon, documents not masked": ["benchmarks.trainer.ours", "plain"],
}
"""In the order of worth."""
SAME_ARITHMETIC = ("colophon, documents not masked", "plain loop")


def measure(one: Configuration, *, write: Write, contestants: dict[str, list[str]] = CONTESTANTS) -> None:
    """Append one record for each contestant, and one that says whether the losses agree."""
    device = device_of_this_machine().type
    with tempfile.TemporaryDirectory(prefix="colophon-gpu-") as work:
        job = TrainingJob(
            preset=one.preset,
            num_ids=one.num_ids,
            sequence_length=one.sequence_length,
            batch_size=one.batch_size,
            micro_batch_size=one.micro_batch_size,
            steps=one.steps,
            warmup_steps=one.steps // 3,
            device=device,
            dtype="bfloat16" if device == "cuda" else "float32",
            work=work,
        )
        path, losses = write_job(job), {}
        for name, command in contestants.items():
            try:
                found = run_contestant(command, path)
            except ContestantError as error:
                write(contestant=name, failed=str(error)[:300])
                continue
            losses[name] = found["losses"]
            write(contestant=name, **_record(found, job))
    _compare(losses, job, write=write)


def _record(found: dict[str, Any], job: TrainingJob) -> dict[str, Any]:
    seconds = Spread.of(found["seconds"])
    return {
        "seconds_per_step": seconds.as_dict(),
        "tokens_per_second": job.tokens_per_step / seconds.median,
        "flops_per_token": job.flops_per_token(),
        "memory_bytes": found["memory_bytes"],
        "data_wait": found.get("data_wait"),
        "rows_at_once": found.get("rows_at_once"),
        "losses": found["losses"],
    }


def _compare(losses: dict[str, list[float]], job: TrainingJob, *, write: Write) -> None:
    if not all(name in losses for name in SAME_ARITHMETIC):
        return
    ours, theirs = (losses[name] for name in SAME_ARITHMETIC)
    check_losses({"colophon": [{"losses": ours}], "plain loop": [{"losses": theirs}]}, job)
    write(losses_agree=True, largest_difference=max(abs(a / b - 1) for a, b in zip(ours, theirs, strict=True)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 0."""
    parser = part_parser(__doc__)
    parser.add_argument("--name", required=True, help="of the configuration")
    options = parser.parse_args(arguments)
    measure(_configuration(options.size, options.name), write=appender(options.output))
    return 0


def _configuration(size: Size, name: str) -> Configuration:
    return next(one for one in configurations(size) if one.name == name)


if __name__ == "__main__":
    sys.exit(main())
