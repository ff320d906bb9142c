"""Runs one job with one contestant: a new process, an empty directory, its time, its memory, its output."""

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
    """A finished job; its output exists until the context of `done` ends."""

    job: Job
    measured: Measured
    contestant: Contestant

    def output(self) -> pa.Table:
        """Return the output in the form of `benchmarks.outputs`."""
        return self.contestant.read(self.job)


@contextmanager
def done(contestant: Contestant, job: Job, *, work: Path, memory: bool = False) -> Iterator[Done]:
    """Run `job` into an empty directory under `work`, which is removed at the end; `memory`: see `run_measured`.

    Raises:
        CommandError: the contestant ended with an error.
    """
    output = work / "output" / contestant.name
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    contestant.prepare(job)
    own = job.at(output)
    os.sync()  # earlier writes must not slow this run
    log = work / "logs" / f"{contestant.name}.log"
    measured = run_measured(contestant.command(own), log=log, env=contestant.env, cwd=ROOT, memory=memory)
    try:
        yield Done(job=own, measured=measured, contestant=contestant)
    finally:
        shutil.rmtree(output, ignore_errors=True)


def peak_bytes(contestant: Contestant, job: Job, *, work: Path) -> int | None:
    """Return the peak memory of the job's processes, each shared page once; None where it cannot be measured."""
    with done(contestant, job, work=work, memory=True) as finished:
        peak = finished.measured.peak
        return None if peak is None else peak.pss_bytes
