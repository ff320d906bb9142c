"""One contestant doing one job: a fresh process, an empty directory, its time, its memory, its output."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from benchmarks.contestants import Contestant
from benchmarks.job import Job
from benchmarks.running import Measured, run_measured
from benchmarks.workload import ROOT


@dataclass(frozen=True, kw_only=True)
class Done:
    """A job that was done; its output is there until the context that gave this ends."""

    job: Job
    measured: Measured
    contestant: Contestant

    def output(self) -> pa.Table:
        """What was written, in one form, see `benchmarks.outputs`."""
        return self.contestant.read(self.job)


@contextmanager
def done(contestant: Contestant, job: Job, *, work: Path, memory: bool = False) -> Iterator[Done]:
    """Have `job` done into an empty directory under `work`, which is removed at the end; `memory`: see `run_measured`.

    Raises:
        CommandError: the contestant ended with an error.
    """
    output = work / "output" / contestant.name
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    contestant.prepare(job)
    own = job.at(output)
    os.sync()  # what was written before is not paid for by this one
    log = work / "logs" / f"{contestant.name}.log"
    measured = run_measured(contestant.command(own), log=log, env=contestant.env, cwd=ROOT, memory=memory)
    try:
        yield Done(job=own, measured=measured, contestant=contestant)
    finally:
        shutil.rmtree(output, ignore_errors=True)


def peak_bytes(contestant: Contestant, job: Job, *, work: Path) -> int | None:
    """The most that the processes hold while the job is done, each shared page once; None where that cannot be told."""
    with done(contestant, job, work=work, memory=True) as finished:
        peak = finished.measured.peak
        return None if peak is None else peak.pss_bytes
