"""The manifest's entries, one to one: partitions, records, quarantine, and its checksum."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from colophon.pipeline.inputs.problems import problems_in_files
from colophon.pipeline.runs.plan import each_once
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.storage.commits import QUARANTINE, Store
from colophon.pipeline.storage.ledger import Ledger
from colophon.pipeline.verification.findings import Finding
from colophon.shards.common.errors import DamagedFileError
from colophon.shards.common.state_files import is_as_written
from colophon.shards.manifest import MANIFEST_NAME, Manifest, OutputManifest
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.records import Record, parse_quarantine


def manifest_findings(resolved: ResolvedRecipe, manifest: Manifest, ledger: Ledger) -> Iterator[Finding]:
    """The entries that the manifest lists twice, in the wrong place or not at all."""
    messages = [
        *_checksum(resolved.store),
        *_partitions(manifest),
        *(line for output, content in manifest.by_output.items() for line in _records(output, content, manifest)),
        *_rows(manifest),
        *_unlisted(resolved, manifest, ledger),
    ]
    yield from (Finding(MANIFEST_NAME, message) for message in messages)
    yield from (Finding(QUARANTINE, message) for message in _quarantine_file(resolved.store, manifest))
    yield from (Finding(MANIFEST_NAME, message) for message in _quarantine(manifest, ledger))


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


def _rows(manifest: Manifest) -> Iterator[str]:
    """Tokens and annotations have a row for each document of their partition."""
    stated: dict[str, tuple[str, int]] = {p.name: ("the partition", p.rows) for p in manifest.partitions if p.rows}
    for output, content in manifest.by_output.items():
        for record in content.records if output.stage != "pack" else ():
            other, rows = stated.setdefault(record.partition, (output, record.rows))
            if record.rows != rows:
                yield f"{output}: the record of {record.partition} states {record.rows} rows, {other} has {rows}"


def _is_own_file(record: Record, output: Output) -> bool:
    """Whether a record's file is that of its output and partition; on an object store its name has the attempt too."""
    name = rf"{re.escape(f'{output}/{record.partition}')}(\.[0-9a-f]+)?{re.escape(output.suffix)}"
    return re.fullmatch(name, record.path) is not None


def _unlisted(resolved: ResolvedRecipe, manifest: Manifest, ledger: Ledger) -> Iterator[str]:
    """Outputs that are not in the manifest, and have commit records, or are of a stage that filled other outputs."""
    stages = {output.stage for output in manifest.by_output}
    for output in dict.fromkeys((*resolved.settings.by_output, *_of_recipe(manifest))):
        if output in manifest.outputs:
            continue
        if len(ledger.records(output)):
            yield f"{output}: has commit records, and is not listed. `colophon run` completes it"
        elif output.stage in stages and output in _of_recipe(manifest):
            yield f"{output}: is not listed, though the manifest's recipe has it. `colophon run` completes it"


def _of_recipe(manifest: Manifest) -> list[Output]:
    """The outputs of the recipe in the manifest."""
    names = {key: manifest.recipe.get(key) for key in ("annotators", "layouts")}
    annotators, layouts = ([*value] if isinstance(value, dict) else [] for value in names.values())
    tokens = [TOKENS] if manifest.recipe.get("tokenizer") is not None else []
    return [*map(Output.annotations, annotators), *tokens, *map(Output.packed, layouts)]


def _quarantine_file(store: Store, manifest: Manifest) -> Iterator[str]:
    try:
        entries = parse_quarantine(store.files.read_bytes(QUARANTINE) or b"", where=QUARANTINE)
    except DamagedFileError as error:
        yield str(error).removeprefix(f"{QUARANTINE}: ")
        return
    if entries != manifest.quarantine:
        yield f"has {len(entries)} entries, which are not the {len(manifest.quarantine)} of the manifest"


def _quarantine(manifest: Manifest, ledger: Ledger) -> Iterator[str]:
    """Partitions that have files are not quarantined, and the rows that are have an entry in a commit record."""
    partitions = {partition.name for partition in manifest.partitions}
    whole = [entry for entry in manifest.quarantine if entry.line is None]
    for entry in whole:
        if entry.partition in partitions:
            yield f"its quarantine lists the partition {entry.partition}, which has files"
    rows = [entry for entry in manifest.quarantine if entry.line is not None]
    try:
        committed = [
            [ledger.sound(output).get(record.partition) for record in content.records]
            for output, content in manifest.outputs.items()
        ]
    except DamagedFileError:
        return  # a file whose record is damaged has a finding of its own
    if not any(None in records for records in committed):
        recorded = each_once(
            problem
            for records in committed
            for problem in problems_in_files(record for record in records if record is not None)
        )
        for entry in recorded:
            if entry not in rows:
                yield f"its quarantine lacks line {entry.line} of {entry.source}, which is in a commit record"
        for entry in rows:
            if entry not in recorded:
                yield f"its quarantine has line {entry.line} of {entry.source}, which is in no commit record"
