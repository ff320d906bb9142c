"""Every committed file against its record, and every packed file against its settings and the laws of its layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.errors import InputError, one_line
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.stages.packing import annotation_columns
from colophon.pipeline.storage.ledger import Ledger
from colophon.pipeline.storage.pass_record import RECORDS
from colophon.pipeline.verification.findings import Finding
from colophon.pipeline.verification.input_identity import place
from colophon.shards.arrow_files import read_table
from colophon.shards.common.differences import differences
from colophon.shards.common.digests import file_sha256, fingerprint
from colophon.shards.common.errors import DamagedFileError, ShardError
from colophon.shards.common.output_paths import OutputPathError
from colophon.shards.laws import broken_laws
from colophon.shards.manifest import Manifest
from colophon.shards.metadata import document_metadata
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.reader import PackedFile
from colophon.shards.records import Record
from colophon.shards.schema import PackedInfo
from colophon.shards.selection import selected


def file_findings(
    resolved: ResolvedRecipe, manifest: Manifest, ledger: Ledger
) -> Iterator[tuple[Record, list[Finding]]]:
    """Each file in the manifest with its findings, usually none."""
    checks = _Checks(resolved, manifest)
    by_partition: dict[str, dict[Output, Record]] = {}
    for output, content in manifest.by_output.items():
        for record in content.records:
            by_partition.setdefault(record.partition, {})[output] = record
    for records in by_partition.values():
        for output, record in records.items():
            try:
                messages = _check_record(resolved, record, ledger) or checks.content(output, records)
            except OutputPathError as error:
                messages = [f"cannot be checked: {error}"]
            yield record, [Finding(record.path, message) for message in messages]


def _check_record(resolved: ResolvedRecipe, record: Record, ledger: Ledger) -> list[str]:
    size = resolved.store.files.size(record.path)
    if size is None:
        return ["is missing"]
    if size != record.bytes:
        return [f"has {size} bytes, its record states {record.bytes}"]
    with resolved.store.files.local_copy(record.path) as path:
        if file_sha256(path) != record.sha256:
            return ["its bytes differ from those that were committed (sha256)"]
    return _check_committed(record, ledger)


def _check_committed(record: Record, ledger: Ledger) -> list[str]:
    """The differences of a record in the manifest from the commit record."""
    try:
        committed = ledger.records(record.output).get(record.partition)
    except DamagedFileError as error:
        return [str(error)]
    if committed is None:
        return [f"its commit record is missing in {RECORDS}/"]
    if committed.model_copy(update={"problems": []}) != record:
        return [f"its commit record in {RECORDS}/ differs from the manifest"]
    return []


@dataclass(frozen=True)
class _Checks:
    """The content of files against the manifest's settings and partitions, and against each other."""

    resolved: ResolvedRecipe
    manifest: Manifest

    @cached_property
    def _plan(self) -> Plan:
        return Plan(self.resolved)

    @cached_property
    def _sources(self) -> dict[str, str]:
        return {partition.name: partition.source for partition in self.manifest.partitions}

    def content(self, output: Output, records: Mapping[Output, Record]) -> list[str]:
        """Messages about the content of an output's file; `records` are those of its partition."""
        record = records[output]
        with ExitStack() as stack:
            path = stack.enter_context(self.resolved.store.files.local_copy(record.path))
            try:
                if output.stage == "pack":
                    missing = [upstream for upstream in self._upstream(output) if upstream not in records]
                    if missing:
                        return [f"is made from {missing[0]} of its partition, which is not in the manifest"]
                    tokens = stack.enter_context(self.resolved.store.files.local_copy(records[TOKENS].path))
                    return self._packed(path, read_table(tokens), output, records)
                rows = read_table(path).num_rows if output == TOKENS else pq.read_metadata(path).num_rows
            except (ShardError, InputError, pa.ArrowException, OSError) as error:
                return [f"cannot be checked: {one_line(error)}"]
        return [] if rows == record.rows else [f"has {rows} rows, its record states {record.rows}"]

    def _upstream(self, packed: Output) -> list[Output]:
        """The outputs that a layout is made from; tokens alone if the recipe no longer has the layout."""
        return self._plan.upstream(packed) if packed.name in self.resolved.recipe.layouts else [TOKENS]

    def _packed(self, path: Path, tokens: pa.Table, output: Output, records: Mapping[Output, Record]) -> list[str]:
        file, record, resolved = PackedFile(path), records[output], self.resolved
        if len(file) != record.rows:
            return [f"has {len(file)} rows, its record states {record.rows}"]
        if file.info.layout.get("name") != output.name:
            return [f"holds the layout {file.info.layout.get('name')!r}"]
        stated = self._stated(file.info, output, record)
        layout = resolved.recipe.layouts.get(output.name)
        if layout is None:
            return [*stated, *broken_laws(file, tokens)]
        columns = annotation_columns(
            layout, tokens=tokens, records=records, providers=resolved.columns.annotator_of, store=resolved.store
        )
        metadata = document_metadata(
            layout,
            ids=tokens.column("id").combine_chunks(),
            columns=columns,
            tokenizer=resolved.tokenizer,
            seed=resolved.recipe.pack.seed,
        )
        kept = selected(layout.where, columns, num_rows=tokens.num_rows)
        return [*stated, *broken_laws(file, tokens, metadata, kept=kept)]

    def _stated(self, info: PackedInfo, output: Output, record: Record) -> Iterator[str]:
        """The differences of a packed file's metadata from the settings of its output and from its partition."""
        settings = self.manifest.outputs[output].settings
        expected = {
            "layout": {"name": output.name, **settings.get("layout", {})},
            "tokenizer": settings.get("tokenizer"),
            "sequence_length": settings.get("pack", {}).get("sequence_length"),
            "fingerprint": fingerprint(settings),
        }
        found = info.model_dump(mode="json", include={*expected})
        yield from (f"its metadata: {line}" for line in differences(expected, found))
        source = self._sources.get(record.partition)
        if source is not None and not any(_is_same(source, named) for named in info.sources):
            yield f"its metadata names the input {', '.join(info.sources)}, the manifest {source}"


def _is_same(source: str, named: str) -> bool:
    """Whether two spellings are one place; a relative one may have been written in a different working directory."""
    return place(source) == place(named) or f"/{source}".endswith(f"/{named}") or f"/{named}".endswith(f"/{source}")
