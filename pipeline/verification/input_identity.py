"""The input as it is now against the partitions in the manifest, by size, time of change and footer."""

from __future__ import annotations

from collections.abc import Iterator

from colophon.pipeline.inputs.partitions import Inputs, Partition
from colophon.pipeline.runs.plan import Plan, partition_info
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.verification.findings import Finding
from colophon.shards.common.differences import differences
from colophon.shards.manifest import MANIFEST_NAME, Manifest, PartitionInfo


def input_findings(resolved: ResolvedRecipe, manifest: Manifest, inputs: Inputs) -> Iterator[Finding]:
    """Inputs that have changed since they were processed, appeared or vanished; and records of different input.

    Each input file has at most one finding.
    """
    present = {partition.name: partition for partition in inputs.partitions}
    outdated = _outdated_files(manifest, inputs, present)
    yield from (Finding(source, message) for source, message in outdated.items())
    current = {i.name: i for i in manifest.partitions if i.name in present and present[i.name].source not in outdated}
    for name, info in current.items():
        lines = differences(partition_info(present[name]).model_dump(), info.model_dump())
        if lines:
            yield Finding(MANIFEST_NAME, f"partition {name}: not as the input has it: {'; '.join(lines)}")
    yield from _fingerprints(resolved, manifest, [present[name] for name in current])


def _outdated_files(manifest: Manifest, inputs: Inputs, present: dict[str, Partition]) -> dict[str, str]:
    """The files of which the outputs are not up to date, each with the reason."""
    unreadable = {entry.source: entry.reason for entry in inputs.quarantine}
    quarantined = {entry.partition or entry.source for entry in manifest.quarantine if entry.line is None}
    found: dict[str, str] = {}
    for info in manifest.partitions:
        source, message = info.source, _outdated(info, present.get(info.name), unreadable)
        if message:
            found.setdefault(source, message)
    listed = {info.name for info in manifest.partitions}
    for partition in inputs.partitions:
        if partition.source in quarantined:
            found.setdefault(partition.source, "was quarantined, and can be read now. `colophon run` processes it")
        elif partition.name not in listed and partition.name not in quarantined:
            message = f"its partition {partition.name} is not in the manifest. `colophon run` processes it"
            found.setdefault(partition.source, message)
    for source, reason in unreadable.items():
        if source not in quarantined:
            found.setdefault(source, f"cannot be read, and is not in the manifest's quarantine: {reason}")
    return found


def _outdated(info: PartitionInfo, partition: Partition | None, unreadable: dict[str, str]) -> str | None:
    if info.source in unreadable:
        return f"cannot be read any more: {unreadable[info.source]}"
    if partition is None:
        return f"its partition {info.name} is no longer in the input. `colophon run` drops it"
    if partition.identity != info.identity:
        return "has changed since it was processed (size, time of change or footer). `colophon run` processes it again"
    return None


def _fingerprints(resolved: ResolvedRecipe, manifest: Manifest, partitions: list[Partition]) -> Iterator[Finding]:
    """The files whose fingerprint is not that of the recipe's settings and their input."""
    plan = Plan(resolved)
    by_name = {partition.name: partition for partition in partitions}
    for output, content in manifest.by_output.items():
        if output not in resolved.settings.by_output:
            continue
        for record in content.records:
            partition = by_name.get(record.partition)
            if partition is not None and plan.fingerprint(output, partition) != record.fingerprint:
                message = "its fingerprint is not that of its settings and input. `colophon run` rebuilds the file"
                yield Finding(record.path, message)
