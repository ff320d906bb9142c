"""The estimate of a run: time by pass, disk by output, and memory, for what is not up to date."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colophon.annotators.remote import RemoteAnnotator, RequestsEstimate
from colophon.pipeline.estimates.rates import Rate, remembered_rate
from colophon.pipeline.executors.cpus import num_cpus_here
from colophon.pipeline.executors.memory_limit import TYPICAL_WORKER_BYTES, available_memory
from colophon.pipeline.inputs.partition_table import Partition, Partitions
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.stages.tasks import Task
from colophon.shards.outputs import Output, StageName

if TYPE_CHECKING:
    from colophon.pipeline.estimates.probe import Probe


@dataclass(frozen=True, kw_only=True)
class PassEstimate:
    """One pass over the partitions that are not up to date."""

    name: str
    """Its stages: `annotate, tokenize` or `pack`."""
    partitions: int
    partition_bytes: int
    documents: int | None
    """None without a rate."""
    text_bytes: int | None
    seconds: float | None
    """With all workers at work, without the start."""
    source: str | None
    """Where the rate comes from; None: there is none."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The estimate of a run."""

    passes: tuple[PassEstimate, ...]
    written_bytes: Mapping[str, int]
    """By output."""
    free_bytes: int | None
    """Free bytes of the output's disk; None for object stores."""
    workers: int
    worker_bytes: int
    """Memory of one worker, without models."""
    is_worker_measured: bool
    model_bytes: int
    """The sizes of the model files; all workers of a machine share them."""
    available_bytes: int
    """Memory that new processes can take."""
    requests: tuple[RequestsEstimate, ...] = ()
    """Requests of annotators that ask a service. A pass's time has theirs only if its rate comes from a run."""

    @property
    def memory_bytes(self) -> int:
        """The memory of all workers and of the models."""
        return self.workers * self.worker_bytes + self.model_bytes

    @property
    def total_bytes(self) -> int:
        """The disk that the run takes."""
        return sum(self.written_bytes.values())

    @property
    def fitting_workers(self) -> int:
        """The number of workers that the available memory has room for, at least 1."""
        return max((self.available_bytes - self.model_bytes) // self.worker_bytes, 1)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Lines about a disk or a memory that is too small, with what to do."""
        lines = [f"annotators.{one.annotator}: {one.warning}" for one in self.requests if one.warning is not None]
        if self.free_bytes is not None and self.total_bytes > self.free_bytes:
            lines.append(
                f"disk: {size_text(self.total_bytes)} will be written, {size_text(self.free_bytes)} are free. "
                "Set output.path to a larger disk"
            )
        if self.memory_bytes > self.available_bytes:
            lines.append(
                f"memory: {self.workers} workers need {size_text(self.memory_bytes)}, "
                f"{size_text(self.available_bytes)} are available. --set ray.num_workers={self.fitting_workers}"
            )
        return tuple(lines)

    def as_dict(self) -> dict[str, Any]:
        """The estimate as a JSON value."""
        return {
            **asdict(self),
            "total_bytes": self.total_bytes,
            "memory_bytes": self.memory_bytes,
            "warnings": list(self.warnings),
        }


def estimate(plan: Plan, stages: Sequence[str], *, may_probe: bool = True) -> Estimate:
    """Estimate a run of the named stages.

    Args:
        plan: the run; nothing of it is written.
        stages: which of annotate, tokenize and pack.
        may_probe: run the stages on some rows (see `estimates.probe`) where no earlier run has left a rate.

    Raises:
        ColophonError: the probe failed.
    """
    resolved = plan.resolved
    work = {names: list(plan.tasks(names, without=())) for names in plan.passes(stages)}
    rates, sources = _rates(plan, {names: tasks for names, tasks in work.items() if tasks}, may_probe=may_probe)
    workers = resolved.recipe.ray.num_workers or num_cpus_here()
    measured = [rate.worker_bytes for rate in rates.values() if rate.worker_bytes is not None]
    written: dict[str, int] = {}
    for names, rate in rates.items():
        written |= _written(work[names], rate)
    return Estimate(
        passes=tuple(
            _pass(names, tasks, rates.get(names), workers=workers, source=sources.get(names))
            for names, tasks in work.items()
        ),
        written_bytes=written,
        free_bytes=free_disk(resolved),
        workers=workers,
        worker_bytes=max(measured, default=TYPICAL_WORKER_BYTES),
        is_worker_measured=bool(measured),
        model_bytes=model_bytes(resolved),
        available_bytes=available_memory(),
        requests=tuple(_requests(resolved, work, rates, workers=workers)),
    )


def outputs_of(tasks: Collection[Task]) -> list[Output]:
    """Return the outputs that some of the tasks write."""
    return sorted({output for task in tasks for output in task.outputs}, key=str)


def _rates(
    plan: Plan, work: Mapping[tuple[StageName, ...], list[Task]], *, may_probe: bool
) -> tuple[dict[tuple[StageName, ...], Rate], dict[tuple[StageName, ...], str]]:
    """Return the rate of each pass that has one, and where it comes from."""
    rates: dict[tuple[StageName, ...], Rate] = {}
    sources: dict[tuple[StageName, ...], str] = {}
    for names, tasks in work.items():
        partitions = Partitions.of(task.partition for task in tasks)
        rate = remembered_rate(plan.resolved.recipe, outputs_of(tasks), partitions)
        if rate is not None:
            rates[names] = rate
            sources[names] = f"a run of {size_text(rate.measured_bytes)} on this machine, {rate.day}"
    missing = [name for names in work if names not in rates for name in names]
    if missing and may_probe:
        from colophon.pipeline.estimates.probe import probe

        probed = probe(plan.resolved, missing)
        for names, rate in probed.rates.items():
            rates[names], sources[names] = rate, _described(probed)
    return rates, sources


def _described(probed: Probe) -> str:
    """Return the work of a probe: `a probe of 64 documents, 12.0 kB, in 1.2 s`, and whether it is too little."""
    number = f"{probed.documents:,} document{'s' if probed.documents != 1 else ''}"
    few = ", too few for more than a rough figure" if probed.is_rough else ""
    return f"a probe of {number}, {size_text(probed.text_bytes)}, in {probed.seconds} s{few}"


def _pass(
    names: tuple[StageName, ...], tasks: Sequence[Task], rate: Rate | None, *, workers: int, source: str | None
) -> PassEstimate:
    partitions = [task.partition for task in tasks]
    total = sum(partition.bytes for partition in partitions)
    return PassEstimate(
        name=", ".join(names),
        partitions=len(partitions),
        partition_bytes=total,
        documents=None if rate is None else _documents(partitions, rate),
        text_bytes=None if rate is None else round(total * rate.text_bytes),
        seconds=None if rate is None else _seconds(partitions, rate, workers=workers),
        source=source,
    )


def _requests(
    resolved: ResolvedRecipe,
    work: Mapping[tuple[StageName, ...], list[Task]],
    rates: Mapping[tuple[StageName, ...], Rate],
    *,
    workers: int,
) -> Iterator[RequestsEstimate]:
    """Yield the requests of each annotator that sends some, where the pass that runs it has a rate."""
    for annotator in resolved.annotators:
        if not isinstance(annotator, RemoteAnnotator):
            continue
        output = Output.annotations(annotator.name)
        for names, rate in rates.items():
            if partitions := [task.partition for task in work[names] if output in task.outputs]:
                number = _documents(partitions, rate)
                yield annotator.estimate(
                    number,
                    mean_characters=sum(p.bytes for p in partitions) * rate.text_bytes / max(number, 1),
                    num_workers=min(workers, len(partitions)),
                )


def _documents(partitions: Sequence[Partition], rate: Rate) -> int:
    return sum(round(p.bytes * rate.documents) if p.rows is None else p.rows for p in partitions)


def _seconds(partitions: Sequence[Partition], rate: Rate, *, workers: int) -> float:
    """Return the time of a pass: all work over the workers, but no less than the largest partition takes."""
    total = sum(partition.bytes for partition in partitions)
    largest = max((partition.bytes for partition in partitions), default=0)
    return round(max(total / workers, largest) * rate.worker_seconds, 1)


def _written(tasks: Sequence[Task], rate: Rate) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for task in tasks:
        for output in map(str, task.outputs):
            sizes[output] = sizes.get(output, 0) + round(task.partition.bytes * rate.written_bytes.get(output, 0.0))
    return sizes


def free_disk(resolved: ResolvedRecipe) -> int | None:
    """Return the bytes that are free where the output is, or will be; None for object stores."""
    if not resolved.store.files.is_local:
        return None
    path = resolved.store.files.path.absolute()
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


def model_bytes(resolved: ResolvedRecipe) -> int:
    """Return the sizes of the annotators' model files, each counted once."""
    paths = {path for config in resolved.recipe.annotators.values() for path in config.paths}
    total = 0
    for path in paths:
        with suppress(OSError):
            total += Path(path).stat().st_size
    return total


def size_text(size: int) -> str:
    """A size as text: `0 MB`, `3.4 kB`, `512 MB`, `1.2 GB`, `3.0 TB`."""
    if not size:
        return "0 MB"
    value, units = size / 1e3, ["kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if value >= 100 else f"{value:.1f} {units[0]}"
