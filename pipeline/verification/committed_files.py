"""Every committed file against its record, and every packed file against the laws of its layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.errors import InputError, one_line
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.stages.packing import annotation_columns
from colophon.pipeline.storage.commits import record_path
from colophon.pipeline.verification.findings import Finding
from colophon.pipeline.verification.recomputed import Recomputation
from colophon.shards.arrow_files import read_table
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.errors import ShardError
from colophon.shards.laws import broken_laws
from colophon.shards.manifest import Manifest, Record
from colophon.shards.metadata import document_metadata
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.reader import PackedFile


def file_findings(
    resolved: ResolvedRecipe, manifest: Manifest, *, deep: bool
) -> Iterator[tuple[Record, list[Finding]]]:
    """Each file in the manifest with its findings, usually none.

    Args:
        resolved: the recipe.
        manifest: the manifest of its output.
        deep: also compute files again from those that they are made from.
    """
    recomputation = Recomputation(resolved) if deep else None
    by_partition: dict[str, dict[Output, Record]] = {}
    for output, content in manifest.by_output.items():
        for record in content.records:
            by_partition.setdefault(record.partition, {})[output] = record
    for records in by_partition.values():
        for output, record in records.items():
            messages = _check_record(resolved, record) or _check_content(resolved, output, records)
            if recomputation is not None and not messages:
                messages = recomputation.differences(output, records)
            yield record, [Finding(record.path, message) for message in messages]


def _check_record(resolved: ResolvedRecipe, record: Record) -> list[str]:
    size = resolved.store.files.size(record.path)
    if size is None:
        return ["is missing"]
    if size != record.bytes:
        return [f"has {size} bytes, its record states {record.bytes}"]
    with resolved.store.files.local_copy(record.path) as path:
        if file_sha256(path) != record.sha256:
            return ["its bytes differ from those that were committed (sha256)"]
    committed = resolved.store.record(record.output, record.partition)
    if committed is None:
        return [f"its commit record, {record_path(record.output, record.partition)}, is missing or damaged"]
    if committed.model_copy(update={"problems": []}) != record:
        return [f"its commit record, {record_path(record.output, record.partition)}, differs from the manifest"]
    return []


def _check_content(resolved: ResolvedRecipe, output: Output, records: Mapping[Output, Record]) -> list[str]:
    record = records[output]
    with ExitStack() as stack:
        path = stack.enter_context(resolved.store.files.local_copy(record.path))
        try:
            if output.stage == "pack":
                missing = [upstream for upstream in _upstream(resolved, output) if upstream not in records]
                if missing:
                    return [f"is made from {missing[0]} of its partition, which is not in the manifest"]
                tokens = stack.enter_context(resolved.store.files.local_copy(records[TOKENS].path))
                return _check_packed(resolved, path, read_table(tokens), output, records)
            rows = read_table(path).num_rows if output == TOKENS else pq.read_metadata(path).num_rows
        except (ShardError, InputError, pa.ArrowException, OSError) as error:
            return [f"cannot be checked: {one_line(error)}"]
    return [] if rows == record.rows else [f"has {rows} rows, its record states {record.rows}"]


def _upstream(resolved: ResolvedRecipe, packed: Output) -> list[Output]:
    """The outputs that a layout is made from; tokens alone if the recipe no longer has the layout."""
    return Plan(resolved).upstream(packed) if packed.name in resolved.recipe.layouts else [TOKENS]


def _check_packed(
    resolved: ResolvedRecipe, path: Path, tokens: pa.Table, output: Output, records: Mapping[Output, Record]
) -> list[str]:
    file, record = PackedFile(path), records[output]
    if len(file) != record.rows:
        return [f"has {len(file)} rows, its record states {record.rows}"]
    if file.info.layout.get("name") != output.name:
        return [f"holds the layout {file.info.layout.get('name')!r}"]
    layout = resolved.recipe.layouts.get(output.name)
    if layout is None:
        return broken_laws(file, tokens)
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
    return broken_laws(file, tokens, metadata)
