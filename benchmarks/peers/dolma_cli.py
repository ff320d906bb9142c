"""Dolma: `dolma tag` with two fastText taggers, then `dolma tokens`.

Source: its documentation on taggers (`--tagger_modules`) and on tokenization
(`--tokenizer.name_or_path`, `--tokenizer.eos_token_id`). In its favour:

- It cannot read Parquet: its input is written as gzipped JSON lines beforehand, which is not timed.
- It requires an eos id and writes it after each document; the comparison removes it.
- It writes uint16, as the others do where the vocabulary fits.

Dolma 1.2 pins versions that conflict with those of the other peers, so it has its own environment:
`pip install dolma==1.2.1 boto3==1.26.76 s3fs==2023.6.0 'numpy<2'`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.job import Job, job_of_command_line

_JOB_VARIABLE = "COLOPHON_BENCH_JOB"


def tag(job: Job, documents: str) -> list[str]:
    """Return the command that writes attributes."""
    return [
        *("tag", "--documents", documents, "--destination", f"{job.output}/attributes"),
        *("--taggers", "quality", "topic", "--tagger_modules", str(Path(__file__).with_name("dolma_taggers.py"))),
        *("--processes", str(job.workers), "--experiment", "bench"),
    ]


def tokens(job: Job, documents: str) -> list[str]:
    """Return the command that writes tokens."""
    return [
        *("tokens", "--documents", documents, "--destination", f"{job.output}/tokens"),
        *("--tokenizer.name_or_path", job.vocabulary.huggingface),
        *("--tokenizer.eos_token_id", str(job.vocabulary.num_ids)),
        *("--dtype", "uint16" if job.vocabulary.num_ids < 1 << 16 else "uint32"),
        *("--processes", str(job.workers)),
    ]


def main() -> None:
    """Run the job of the command line."""
    job = job_of_command_line()
    documents = f"{job.json_lines}/*.jsonl.gz"
    environment = {**os.environ, _JOB_VARIABLE: sys.argv[1]}
    for arguments in (tag(job, documents), tokens(job, documents)):
        subprocess.run([sys.executable, "-m", "dolma.cli", *arguments], env=environment, check=True)


if __name__ == "__main__":
    main()
