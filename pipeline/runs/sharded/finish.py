"""`colophon finish`: makes one run of its shards.

It holds the whole output's lock, checks that every partition has a record or is quarantined, and writes what a run
without shards writes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from colophon.pipeline.executors.inline import InlineExecutor
from colophon.pipeline.recipe.schema import Recipe
from colophon.pipeline.reports.summary import summarize, write_report
from colophon.pipeline.runs.calibration import calibrated
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.recipe_run import recipe_arguments
from colophon.pipeline.runs.resolve import ResolvedRecipe, changed_settings, resolve
from colophon.pipeline.runs.run import VISIBLE_PAUSES_SECONDS, PassTiming, Run, RunResult
from colophon.pipeline.runs.sharded.state import ShardState, completed, shard_states
from colophon.pipeline.stages.timing import STEPS
from colophon.pipeline.storage.lock import locked
from colophon.pipeline.storage.shard import Shard, shard_numbers
from colophon.shards.common.errors import ColophonError, ShardError
from colophon.shards.manifest import Manifest
from colophon.shards.outputs import STAGES, StageName
from colophon.shards.records import QuarantineEntry

if TYPE_CHECKING:
    from rich.console import Console


def finish_run(
    recipe: Recipe, *, where: str, settings: Sequence[str] = (), console: Console, log: Callable[[str], None]
) -> RunResult:
    """Write the manifest, the quarantine and the report of a run whose shards have ended.

    Where that was done before and nothing has changed since, the result has no times and every file keeps its bytes.

    Args:
        recipe: the recipe of the shards.
        where: its name in errors.
        settings: the `--set` options that it was loaded with, for the command that an error names.
        console: shows how many partitions are complete.
        log: see `locked`.

    Raises:
        UsageError: the recipe is invalid, or differs from that of the shards.
        ColophonError: files are missing, the message names their shards; or a run or a shard is at work.
    """
    begun = time.monotonic()
    resolved = resolve(recipe, where=where)
    with locked(resolved.store, log=log) as owner:
        resolved = calibrated(resolved.for_run(owner.token), write=False, log=log)
        states = shard_states(resolved.store)
        stages = [stage for stage in STAGES if not states or any(stage in state.stages for state in states.values())]
        resolved.check_tokenizer(stages)
        known = completed(resolved, states)
        quarantined = [entry for _, state in sorted(known.items()) for entry in state.quarantine]
        is_all_there = bool(known) and len(known) == next(iter(known)).count
        arguments = recipe_arguments(where, settings)
        _check_settings(resolved, stages, arguments=arguments)
        _check_complete(resolved, stages, states, quarantined, may_wait=is_all_there, arguments=arguments)
        before = _manifest(resolved)
        result = Run(
            resolved, stages=stages, executor=InlineExecutor(), console=console, quarantined=quarantined, begun=begun
        ).execute()
        if before is None or result.manifest.checksum != before.checksum:
            result = _with_times(result, list(states.values()))
        summary = summarize(result, store=resolved.store)
        write_report(summary, result, store=resolved.store)
    return replace(result, summary=summary)


def _check_settings(resolved: ResolvedRecipe, stages: Sequence[StageName], *, arguments: str) -> None:
    """Check that the files of the shards have the recipe's settings: a shard that is run again would refuse them.

    Raises:
        UsageError: an output was written with other settings.
    """
    plan = Plan(resolved)
    for stage in stages:
        for output, lines in plan.changed_settings(stage).items():
            remedy = (
                f"`colophon run {arguments} --rebuild`, or each shard with --rebuild, replaces the outdated files; "
                "a different output.path keeps both"
            )
            raise changed_settings(f"{resolved.store.root}/{output}", lines, remedy=remedy)


def _check_complete(
    resolved: ResolvedRecipe,
    stages: Sequence[StageName],
    states: Mapping[Shard, ShardState],
    quarantined: Sequence[QuarantineEntry],
    *,
    may_wait: bool,
    arguments: str,
) -> None:
    """Check that every partition has a record for every output, or a quarantine entry.

    `may_wait`: every shard has completed this plan. Then missing files are waited for: a network file system may show
    those of other machines only after a minute. `arguments`: see `recipe_arguments`.

    Raises:
        ColophonError: files are missing.
    """
    without = {entry.partition: entry for entry in quarantined if entry.partition is not None}
    missing = _missing(resolved, stages, without)
    for pause in VISIBLE_PAUSES_SECONDS if may_wait and missing else ():
        time.sleep(pause)
        missing = _missing(resolved, stages, without)
        if not missing:
            return
    if missing:
        raise ColophonError(_missing_message(resolved, missing, states, arguments))


def _missing(resolved: ResolvedRecipe, stages: Sequence[StageName], without: Mapping[str, QuarantineEntry]) -> set[str]:
    """The names of partitions without an up-to-date file of every output."""
    plan = Plan(resolved)
    files = (file for of_pass in plan.passes(stages) for file in plan.missing(of_pass, without=without))
    return {partition.name for _, partition in files}


def _missing_message(
    resolved: ResolvedRecipe, missing: set[str], states: Mapping[Shard, ShardState], arguments: str
) -> str:
    partitions = resolved.inputs.partitions
    line = f"{resolved.store.root}: {len(missing):,} of {len(partitions):,} partitions are missing or out of date"
    command = f"`colophon run {arguments} --shard"
    if not states:
        return f"{line}, and no shard has begun. {command} NUMBER/COUNT` runs one"
    count = next(iter(states)).count
    numbers = shard_numbers(partitions.sizes, count=count)
    incomplete = sorted({int(n) for n, p in zip(numbers, partitions, strict=True) if p.name in missing})
    return (
        f"{line}, of shards {_ranges(incomplete)} of {count}. Run each of them again, such as "
        f"{command} {incomplete[0]}/{count}`, then `colophon finish {arguments}`"
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, as Slurm's `--array` takes them: `3,7-9`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _with_times(result: RunResult, states: Sequence[ShardState]) -> RunResult:
    """The result with the times of all shards: seconds are those of the slowest, everything else is summed."""
    passes = defaultdict[str, list[PassTiming]](list)
    for state in states:
        for timing in state.passes:
            passes[timing.name].append(timing)
    return replace(
        result,
        timings=tuple(_sum(timings) for timings in passes.values()),
        start_seconds=max((state.start_seconds for state in states), default=0.0),
        notes=tuple(dict.fromkeys(note for state in states for note in state.notes)),
    )


def _sum(timings: Sequence[PassTiming]) -> PassTiming:
    outputs = dict.fromkeys(output for timing in timings for output in timing.written_bytes)
    return PassTiming(
        name=timings[0].name,
        partitions=sum(timing.partitions for timing in timings),
        documents=sum(timing.documents for timing in timings),
        text_bytes=sum(timing.text_bytes for timing in timings),
        seconds=max(timing.seconds for timing in timings),
        worker_seconds={step: sum(timing.worker_seconds.get(step, 0.0) for timing in timings) for step in STEPS},
        partition_bytes=sum(timing.partition_bytes for timing in timings),
        written_bytes={output: sum(timing.written_bytes.get(output, 0) for timing in timings) for output in outputs},
    )


def _manifest(resolved: ResolvedRecipe) -> Manifest | None:
    try:
        return resolved.manifest()
    except ShardError:  # damaged, or of another version: it is replaced
        return None
