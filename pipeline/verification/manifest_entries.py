"""The manifest's entries, one to one: partitions, records, quarantine, and its checksum."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from pydantic import ValidationError

from colophon.pipeline.runs.plan import each_once
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.storage.commits import QUARANTINE, Store
from colophon.pipeline.verification.findings import Finding
from colophon.shards.manifest import MANIFEST_NAME, Manifest, OutputManifest, QuarantineEntry, Record, is_as_written
from colophon.shards.outputs import Output


def manifest_findings(resolved: ResolvedRecipe, manifest: Manifest) -> Iterator[Finding]:
    """The entries that the manifest lists twice, in the wrong place or not at all."""
    messages = [
        *_checksum(resolved.store),
        *_partitions(manifest),
        *(line for output, content in manifest.by_output.items() for line in _records(output, content, manifest)),
        *_unlisted(resolved, manifest),
    ]
    yield from (Finding(MANIFEST_NAME, message) for message in messages)
    yield from (Finding(QUARANTINE, message) for message in _quarantine_file(resolved.store, manifest))
    yield from (Finding(MANIFEST_NAME, message) for message in _quarantine(resolved.store, manifest))


def _checksum(store: Store) -> Iterator[str]:
    if not is_as_written(store.files.read_text(MANIFEST_NAME) or ""):
        yield "its checksum is wrong: it was edited or damaged, or an older version wrote it. `colophon run` writes it"


def _partitions(manifest: Manifest) -> Iterator[str]:
    for name, count in Counter(partition.name for partition in manifest.partitions).items():
        if count > 1:
            yield f"lists the partition {name} {count} times"


def _records(output: Output, content: OutputManifest, manifest: Manifest) -> Iterator[str]:
    """Each partition has one record, in the order of the partitions, which names the partition's own file."""
    expected = list(dict.fromkeys(partition.name for partition in manifest.partitions))
    counts = Counter(record.partition for record in content.records)
    for name, count in counts.items():
        if name not in set(expected):
            yield f"{output}: has a record of the partition {name}, which is not among its partitions"
        elif count > 1:
            yield f"{output}: has {count} records of the partition {name}"
    for name in expected:
        if name not in counts:
            yield f"{output}: has no record of the partition {name}. `colophon run` writes its file"
    if [name for name in counts if name in set(expected)] != [name for name in expected if name in counts]:
        yield f"{output}: its records are not in the order of the partitions"
    for record in content.records:
        if record.output != output or not _is_own_file(record, output):
            yield f"{output}: the record of the partition {record.partition} names the file {record.path}"


def _is_own_file(record: Record, output: Output) -> bool:
    """Whether a record's file is that of its output and partition; on an object store its name has the attempt too."""
    name = rf"{re.escape(f'{output}/{record.partition}')}(\.[0-9a-f]+)?{re.escape(output.suffix)}"
    return re.fullmatch(name, record.path) is not None


def _unlisted(resolved: ResolvedRecipe, manifest: Manifest) -> Iterator[str]:
    """The recipe's outputs that have commit records, and are not in the manifest."""
    for output in resolved.settings.by_output:
        if output not in manifest.outputs and resolved.store.recorded(output):
            yield f"{output}: has commit records, and is not listed. `colophon run` completes it"


def _quarantine_file(store: Store, manifest: Manifest) -> Iterator[str]:
    lines = (store.files.read_text(QUARANTINE) or "").split("\n")  # a reason may hold other line ends
    try:
        entries = [QuarantineEntry.model_validate_json(line) for line in lines if line]
    except ValidationError:
        yield "is damaged. `colophon run` writes it"
        return
    if entries != manifest.quarantine:
        yield f"has {len(entries)} entries, which are not the {len(manifest.quarantine)} of the manifest"


def _quarantine(store: Store, manifest: Manifest) -> Iterator[str]:
    """Partitions that have files are not quarantined, and the rows that are have an entry in a commit record."""
    partitions = {partition.name for partition in manifest.partitions}
    whole = [entry for entry in manifest.quarantine if entry.line is None]
    for entry in whole:
        if entry.partition in partitions:
            yield f"its quarantine lists the partition {entry.partition}, which has files"
    rows = [entry for entry in manifest.quarantine if entry.line is not None]
    listed = [record for content in manifest.outputs.values() for record in content.records]
    committed = [store.record(record.output, record.partition) for record in listed]
    if None not in committed:
        recorded = each_once(problem for record in committed if record is not None for problem in record.problems)
        for entry in recorded:
            if entry not in rows:
                yield f"its quarantine lacks line {entry.line} of {entry.source}, which is in a commit record"
        for entry in rows:
            if entry not in recorded:
                yield f"its quarantine has line {entry.line} of {entry.source}, which is in no commit record"
