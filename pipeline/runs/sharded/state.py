"""The state of each shard of a run: what it leaves for `colophon finish`.

A shard writes data files and their records as any run does. Its own file, `shards/3-of-64.json`, has the rest: the
partitions that it quarantined, and its times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.runs.run import PassTiming, RunResult
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.shard import SHARDS, Shard, shard_numbers, shard_of_lock
from colophon.shards.common.digests import fingerprint
from colophon.shards.common.state_files import with_checksum
from colophon.shards.outputs import StageName
from colophon.shards.records import QuarantineEntry

_REMEDY = "Delete it, and run the shard again"


class ShardState(BaseModel):
    """The content of a shard's file: what `finish` needs to know and no commit record has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checksum: str = ""
    stages: list[StageName]
    plan: str
    """Digest of the share and of the settings of the outputs. The quarantine of another plan is out of date."""
    complete: bool = False
    """False from the shard's start to its end."""
    quarantine: list[QuarantineEntry] = []
    """The partitions that it could not use."""
    passes: list[PassTiming] = []
    """The times of its last run that had work."""
    start_seconds: float = 0.0
    notes: list[str] = []


def begin_shard(resolved: ResolvedRecipe, stages: Sequence[StageName]) -> None:
    """Write the shard's file at its start. The files of shards of other counts, which have no meaning now, are deleted.

    Args:
        resolved: the shard's, calibrated; this process holds its lock.
        stages: those that the shard will run.
    """
    store, shard = resolved.store, _shard(resolved)
    for other in _shards_with_files(store):
        if other.count != shard.count:
            store.files.remove(_path(other))
    last = _state(store, shard)
    times = {} if last is None else last.model_dump(include={"passes", "start_seconds", "notes"})
    _write(store, shard, ShardState(stages=list(stages), plan=_plan(resolved, resolved.inputs.partitions), **times))


def end_shard(resolved: ResolvedRecipe, stages: Sequence[StageName], result: RunResult) -> None:
    """Write the shard's file at its end, for the result of a run of these stages."""
    store, shard = resolved.store, _shard(resolved)
    last = _state(store, shard)
    state = ShardState(
        stages=list(stages),
        plan=_plan(resolved, resolved.inputs.partitions),
        complete=True,
        quarantine=[entry for entry in result.manifest.quarantine if _is_partition(entry)],
    )
    if last is None or result.has_worked:
        times = {"passes": list(result.timings), "start_seconds": result.start_seconds, "notes": list(result.notes)}
    else:
        times = {"passes": last.passes, "start_seconds": last.start_seconds, "notes": last.notes}
    _write(store, shard, state.model_copy(update=times))


def shard_states(store: Store) -> dict[Shard, ShardState]:
    """The state of every shard that has begun; all are of one count.

    Raises:
        DamagedFileError: one is damaged.
    """
    found = {shard: _state(store, shard) for shard in _shards_with_files(store)}
    return {shard: state for shard, state in found.items() if state is not None}


def completed(resolved: ResolvedRecipe, states: Mapping[Shard, ShardState]) -> dict[Shard, ShardState]:
    """The states of the shards that have completed the plan of now; those of others may be out of date."""
    plans = _plans(resolved, states)
    return {shard: state for shard, state in states.items() if state.complete and state.plan == plans[shard]}


def _plans(resolved: ResolvedRecipe, states: Iterable[Shard]) -> dict[Shard, str]:
    """The digest of each shard's plan."""
    partitions, shares = resolved.inputs.partitions, defaultdict[Shard, list[Partition]](list)
    for count in {shard.count for shard in states}:
        numbers = shard_numbers(partitions.sizes, count=count)
        for number, partition in zip(numbers.tolist(), partitions, strict=True):
            shares[Shard(number, count)].append(partition)
    return {shard: _plan(resolved, shares[shard]) for shard in states}


def _plan(resolved: ResolvedRecipe, share: Sequence[Partition]) -> str:
    extents = [[p.name, p.identity, p.row_groups, p.first_row] for p in share]
    return fingerprint([resolved.settings.fingerprints, extents])


def _is_partition(entry: QuarantineEntry) -> bool:
    return entry.partition is not None and entry.line is None


def _shard(resolved: ResolvedRecipe) -> Shard:
    assert resolved.shard is not None
    return resolved.shard


def _path(shard: Shard) -> str:
    return f"{shard.path}.json"


def _shards_with_files(store: Store) -> list[Shard]:
    names = (name.removesuffix(".json") for name in store.files.names(SHARDS) if name.endswith(".json"))
    found = (shard_of_lock(f"{SHARDS}/{name}.lock") for name in names)
    return sorted(shard for shard in found if shard is not None)


def _state(store: Store, shard: Shard) -> ShardState | None:
    return store.files.read_model(ShardState, _path(shard), remedy=_REMEDY)


def _write(store: Store, shard: Shard, state: ShardState) -> None:
    store.files.replace_text(_path(shard), with_checksum(state.model_dump_json(indent=1)))
