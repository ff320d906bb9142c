"""Keeps the rates of a run that has ended, for the estimates of later ones on this machine."""

from __future__ import annotations

from colophon.pipeline.estimates.rates import RECORDED_BYTES, RECORDED_SECONDS, rate_of, remember_rate
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.runs.run import RunResult
from colophon.shards.outputs import Output


def remember_rates(result: RunResult, resolved: ResolvedRecipe, *, workers: int) -> None:
    """Keep the rate of each pass of at least `RECORDED_SECONDS` and `RECORDED_BYTES`, with this number of workers."""
    for timing in result.timings:
        if timing.seconds < RECORDED_SECONDS or timing.partition_bytes < RECORDED_BYTES:
            continue
        busy = min(workers, timing.partitions)
        load = timing.worker_seconds.get("load", 0.0)
        rate = rate_of(
            input_bytes=timing.partition_bytes,
            worker_seconds=max(timing.seconds * busy - load, 0.0),
            documents=timing.documents,
            text_bytes=timing.text_bytes,
            written_bytes=timing.written_bytes,
        )
        outputs = [Output.parse(name) for name in timing.written_bytes]
        remember_rate(rate, resolved.recipe, outputs, resolved.inputs.partitions)
