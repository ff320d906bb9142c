"""The input as it is now against the partitions in the manifest, by size, time of change and footer."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.partitions import Inputs
from colophon.pipeline.runs.plan import Plan, partition_info
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.verification.findings import Finding
from colophon.shards.common.differences import differences
from colophon.shards.common.url_secrets import without_query
from colophon.shards.manifest import MANIFEST_NAME, Manifest
from colophon.shards.records import PartitionInfo, QuarantineEntry, file_of


def input_findings(resolved: ResolvedRecipe, manifest: Manifest, inputs: Inputs) -> Iterator[Finding]:
    """Inputs that have changed since they were processed, appeared or vanished; and records of different input.

    Each input file has at most one finding. A different spelling of its path is none.
    """
    present = {partition.name: partition for partition in inputs.partitions}
    outdated = _outdated_files(manifest, inputs, present)
    yield from outdated.values()
    current = [i for i in manifest.partitions if i.name in present and i.file not in outdated]
    for info in current:
        expected = partition_info(present[info.name])
        if place(expected.source) == place(info.source):
            expected = expected.model_copy(update={"source": info.source})
        lines = differences(expected.model_dump(), info.model_dump())
        if lines:
            yield Finding(MANIFEST_NAME, f"partition {info.name}: not as the input has it: {'; '.join(lines)}")
    yield from _fingerprints(resolved, manifest, {info.name for info in current})


def place(source: str) -> str:
    """The place of an input file, however its path is spelled."""
    return without_query(source) if "://" in source else os.path.realpath(source)


def _outdated_files(manifest: Manifest, inputs: Inputs, present: dict[str, Partition]) -> dict[str, Finding]:
    """The files of which the outputs are not up to date, by `file_of` or place, each with the reason."""
    unreadable = {place(entry.source): entry for entry in inputs.quarantine}
    excluded = [entry for entry in manifest.quarantine if entry.line is None]
    files = {place(entry.source) for entry in excluded if entry.partition is None}
    partitions = {entry.partition for entry in excluded}
    found: dict[str, Finding] = {}

    def add(file: str, source: str, message: str) -> None:
        found.setdefault(file, Finding(source, message))

    for info in manifest.partitions:
        message = _outdated(info, present.get(info.name), unreadable.get(place(info.source)))
        if message:
            add(info.file, info.source, message)
    listed = {info.name for info in manifest.partitions}
    for partition in inputs.partitions:
        if partition.name in listed:
            continue
        file = file_of(partition.name)
        if place(partition.source) in files:
            add(file, partition.source, "was quarantined, and can be read now. `colophon run` processes it")
        elif partition.name not in partitions:
            message = f"its partition {partition.name} is not in the manifest. `colophon run` processes it"
            add(file, partition.source, message)
    files |= {place(finding.path) for finding in found.values()}
    for entry in unreadable.values():
        if place(entry.source) not in files:
            message = f"cannot be read, and is not in the manifest's quarantine: {entry.reason}"
            add(place(entry.source), entry.source, message)
    return found


def _outdated(info: PartitionInfo, partition: Partition | None, unreadable: QuarantineEntry | None) -> str | None:
    if partition is None and unreadable is not None:
        return f"cannot be read any more: {unreadable.reason}"
    if partition is None:
        return f"its partition {info.name} is no longer in the input. `colophon run` drops it"
    if partition.identity != info.identity:
        return "has changed since it was processed (size, time of change or footer). `colophon run` processes it again"
    return None


def _fingerprints(resolved: ResolvedRecipe, manifest: Manifest, partitions: Collection[str]) -> Iterator[Finding]:
    """The files of these partitions whose fingerprint is not that of the recipe's settings and their input."""
    plan = Plan(resolved)
    names = resolved.inputs.partitions.names.to_pylist()
    for output, content in manifest.by_output.items():
        if output not in resolved.settings.by_output:
            continue
        expected = dict(zip(names, plan.fingerprints(output).to_pylist(), strict=True))
        for record in content.records:
            if record.partition in partitions and expected[record.partition] != record.fingerprint:
                message = "its fingerprint is not that of its settings and input. `colophon run` rebuilds the file"
                yield Finding(record.path, message)
