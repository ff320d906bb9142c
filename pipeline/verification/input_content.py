"""`colophon verify --inputs`: the input read again, its columns against the hashes in the records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from colophon.pipeline.errors import InputError, one_line
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.verification.findings import Finding
from colophon.shards.manifest import Manifest
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.records import Record

_THREADS = 4


def content_findings(
    resolved: ResolvedRecipe, manifest: Manifest, partitions: Sequence[Partition]
) -> Iterator[Finding]:
    """The partitions whose content is not what their files were made from. Cost: reading and hashing the input."""
    needs = resolved.columns.needs
    records: dict[str, list[Record]] = {}
    for output, content in manifest.by_output.items():
        if output.stage != "pack":
            for record in content.records:
                records.setdefault(record.partition, []).append(record)

    def check(partition: Partition) -> list[Finding]:
        return list(_findings(partition, records.get(partition.name, []), needs))

    with ThreadPoolExecutor(_THREADS) as threads:
        for findings in threads.map(check, partitions):
            yield from findings


def _findings(partition: Partition, records: Sequence[Record], needs: dict[str, ColumnNeed]) -> Iterator[Finding]:
    for record in records:
        if record.output == TOKENS and "text" not in record.content:
            yield Finding(record.path, "its record has no hash of the input's columns: an older version wrote it")
    wanted = {name for record in records for name in record.content}
    if not wanted:
        return
    reader = PartitionReader(partition, [need for name, need in needs.items() if name in wanted], stage="verify")
    try:
        for _ in reader:
            pass
    except InputError as error:
        yield Finding(partition.source, f"partition {partition.name} cannot be read: {one_line(error)}")
        return
    for name, sha256 in reader.content.items():
        outputs = [Output(r.output) for r in records if r.content.get(name, sha256) != sha256]
        if outputs:
            yield Finding(
                partition.source,
                f"partition {partition.name}: the column {name!r} is not the one that {', '.join(outputs)} "
                "were made from, though size, time of change and footer are. `touch` the file, then run again",
            )
