"""Contestant: Colophon's trainer, its own loop from shards to `metrics.jsonl`.

python -m benchmarks.trainer.ours JOB (plain|documents) [SETTINGS]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.trainer.job import read_job, report
from colophon.trainer.loop import train


def main(path: str, masking: str, settings: str = "{}") -> None:
    """Train the job at `path`; `documents`: tokens attend within their document. `settings`: further ones, in JSON."""
    job = read_job(path)
    name = f"bench-{masking}"
    config = job.config(document_masking=masking == "documents", **json.loads(settings))
    result = train(config, name=name, output=job.output, overwrite=True)
    lines = [json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    before = [0, *(line["tokens"] for line in steps)]
    tokens = [line["tokens"] - earlier for line, earlier in zip(steps, before, strict=False)]
    report(
        losses=[line["loss"] for line in steps],
        seconds=[n / line["tokens_per_second"] for n, line in zip(tokens, steps, strict=True)],
        job=job,
        mfu=steps[-1]["mfu"],
        rows_at_once=_rows_at_once(result.directory),
        data_wait=sum(line["data_wait"] for line in steps[job.warmup_steps :]) / (len(steps) - job.warmup_steps),
    )


def _rows_at_once(directory: Path) -> int | None:
    """The sequences of a micro-batch, if they were searched."""
    file = directory / "micro_batch.json"
    return int(json.loads(file.read_text())["rows"]) if file.is_file() else None


if __name__ == "__main__":
    main(*sys.argv[1:])
