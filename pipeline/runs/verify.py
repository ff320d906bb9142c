"""`colophon verify`: every file of a run against its commit record, and every packed file against the laws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from colophon.pipeline.errors import InputError, UsageError
from colophon.pipeline.runs.resolve import Prepared, changed_settings
from colophon.pipeline.stages.packing import annotation_columns
from colophon.pipeline.storage.commits import record_path
from colophon.shards.arrow_files import read_table
from colophon.shards.common.differences import differences
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.errors import ShardError
from colophon.shards.laws import broken_laws
from colophon.shards.manifest import MANIFEST_NAME, Manifest, Record
from colophon.shards.metadata import document_metadata
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.reader import PackedFile


@dataclass(frozen=True)
class Finding:
    """Something that is not as its record or a law says."""

    path: str
    message: str


def load_manifest(prepared: Prepared) -> Manifest:
    """The manifest under the recipe's output.

    Raises:
        UsageError: the recipe has not been run, or the manifest is damaged.
    """
    text = prepared.store.read_text(MANIFEST_NAME)
    if text is None:
        raise UsageError(f"{prepared.store.root} has no {MANIFEST_NAME}: run `colophon run` first")
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{prepared.store.root}/{MANIFEST_NAME} is damaged: {error.errors()[0]['msg']}") from None


def verify(prepared: Prepared, manifest: Manifest) -> Iterator[tuple[Record, list[Finding]]]:
    """Each committed file with what is wrong with it, usually nothing.

    Raises:
        UsageError: the recipe is not the one that made the files.
    """
    for stage, content in manifest.outputs.items():
        lines = differences(content.settings, prepared.settings.get(Output.parse(stage), content.settings))
        if lines:
            raise changed_settings(f"{prepared.store.root}/{stage}", lines)
    by_partition: dict[str, dict[Output, Record]] = {}
    for stage, content in manifest.outputs.items():
        for record in content.records:
            by_partition.setdefault(record.partition, {})[Output.parse(stage)] = record
    for records in by_partition.values():
        for record in records.values():
            messages = _against_record(prepared, record) or _content(prepared, record, records)
            yield record, [Finding(record.path, message) for message in messages]


def _against_record(prepared: Prepared, record: Record) -> list[str]:
    size = prepared.store.size(record.path)
    if size is None:
        return ["is missing"]
    if size != record.bytes:
        return [f"has {size} bytes, its record says {record.bytes}"]
    with prepared.store.local(record.path) as path:
        if file_sha256(path) != record.sha256:
            return ["its bytes differ from those that were committed (sha256)"]
    committed = prepared.store.record(record.output, record.partition)
    if committed is None:
        return [f"its commit record, {record_path(record.output, record.partition)}, is missing or damaged"]
    if committed.model_copy(update={"problems": []}) != record:
        return [f"its commit record, {record_path(record.output, record.partition)}, differs from the manifest"]
    return []


def _content(prepared: Prepared, record: Record, records: dict[Output, Record]) -> list[str]:
    with ExitStack() as stack:
        path = stack.enter_context(prepared.store.local(record.path))
        try:
            if Output.parse(record.output).stage == "pack":
                if TOKENS not in records:
                    return ["its token file is not in the manifest"]
                tokens = stack.enter_context(prepared.store.local(records[TOKENS].path))
                return _packed(prepared, path, read_table(tokens), record, records)
            rows = read_table(path).num_rows if record.output == TOKENS else pq.read_metadata(path).num_rows
        except (ShardError, InputError, pa.ArrowException, OSError) as error:
            return [f"cannot be checked: {error}".splitlines()[0]]
    return [] if rows == record.rows else [f"has {rows} rows, its record says {record.rows}"]


def _packed(
    prepared: Prepared, path: Path, tokens: pa.Table, record: Record, records: dict[Output, Record]
) -> list[str]:
    file = PackedFile(path)
    if len(file) != record.rows:
        return [f"has {len(file)} rows, its record says {record.rows}"]
    if Output.packed(str(file.info.layout.get("name"))) != record.output:
        return [f"holds the layout {file.info.layout.get('name')!r}"]
    layout = prepared.recipe.layouts.get(Output.parse(record.output).name)
    if layout is None:
        return broken_laws(file, tokens)
    columns = annotation_columns(
        layout, tokens=tokens, records=records, providers=prepared.providers, store=prepared.store
    )
    metadata = document_metadata(
        layout,
        ids=tokens.column("id").combine_chunks(),
        columns=columns,
        tokenizer=prepared.tokenizer,
        seed=prepared.recipe.pack.seed,
    )
    return broken_laws(file, tokens, metadata)
