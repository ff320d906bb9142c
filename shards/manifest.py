"""The manifest of a run: its commit records, partitions, settings and quarantine. Readers trust nothing else.

    manifest.json                                     versions, recipe, settings by output, quarantine; names the tables
    manifest/partitions-<sha256>.parquet              the partitions
    manifest/<output>-<sha256>.parquet                the records of an output, in the order of the partitions
                                                      (on object stores: <output>-<run>-<sha256>)

Opening a run reads `manifest.json` alone; a table is read when it is first used, so a reader of one layout reads its
records only. Older versions wrote everything into `manifest.json`, which is still read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AliasChoices, Field, PlainSerializer, WrapValidator

from colophon.shards.common.errors import DamagedFileError, ShardError, did_you_mean
from colophon.shards.common.output_paths import inside
from colophon.shards.common.state_files import parse_state, read_regular, validated, with_checksum
from colophon.shards.common.state_tables import parse_table, table_bytes
from colophon.shards.common.table_rows import TableRows
from colophon.shards.outputs import Output, StageName
from colophon.shards.record_table import PARTITIONS, RECORDS, PartitionTable, RecordTable
from colophon.shards.records import REMEDY, Frozen, PartitionInfo, QuarantineEntry, Record
from colophon.shards.schema import FORMAT_VERSION, UPDATE
from colophon.shards.stores.places import RunPlace

MANIFEST_NAME = "manifest.json"
TABLES = "manifest"
"""The directory of the manifest's tables."""
_DIGITS = 32
"""Digits of the sha256 in a table's name."""
_TABLE = re.compile(rf"{TABLES}/.+-([0-9a-f]{{{_DIGITS}}})\.parquet")


def _table_as_it_is(value: Any, validate: Callable[[Any], Any]) -> Any:
    return value if isinstance(value, TableRows) else validate(value)


_KEPT = WrapValidator(_table_as_it_is)
"""A table is not read when it becomes a part of a manifest."""
_AS_LIST = PlainSerializer(list, return_type=list)


class LeftAside(Frozen):
    """Files or directories of one kind that a search of the input did not take for data."""

    kind: str
    """`hidden file`, `hidden directory`, `side file`, `no suffix`, `unknown suffix .txt`, ..."""
    count: int
    examples: list[str]
    """Up to three of them."""


class OutputManifest(Frozen):
    """The settings and committed files of one output, in the order of the run's partitions."""

    settings: dict[str, Any]
    records: Annotated[Sequence[Record], _KEPT, _AS_LIST]


class Manifest(Frozen):
    """The content of `manifest.json` and its tables."""

    checksum: str = ""
    """sha256 of the other bytes of `manifest.json`, see `state_files.with_checksum`; empty in older manifests."""
    format_version: int = FORMAT_VERSION
    colophon_version: str
    recipe: dict[str, Any]
    partitions: Annotated[Sequence[PartitionInfo], _KEPT, _AS_LIST]
    outputs: dict[str, OutputManifest] = Field(validation_alias=AliasChoices("outputs", "stages"))
    """By directory, see `Output`. Manifests of older runs have the key `stages`, which is still read."""
    quarantine: list[QuarantineEntry] = Field([])
    left_aside: list[LeftAside] = Field([])
    """By kind, the most frequent first; empty in manifests of older versions."""

    @property
    def by_output(self) -> dict[Output, OutputManifest]:
        """The outputs by what they are.

        Raises:
            ShardError: one is not the directory of an output.
        """
        return {Output.parse(directory): content for directory, content in self.outputs.items()}

    @property
    def annotators(self) -> dict[str, OutputManifest]:
        """The outputs of annotators, by the annotators' names."""
        return self._outputs_of("annotate")

    @property
    def layouts(self) -> dict[str, OutputManifest]:
        """The packed outputs, by the layouts' names."""
        return self._outputs_of("pack")

    def _outputs_of(self, stage: StageName) -> dict[str, OutputManifest]:
        return {output.name: content for output, content in self.by_output.items() if output.stage == stage}

    def packed_files(self, output: Path, layout: str) -> list[Path]:
        """The layout's files under `output` that have rows, in partition order.

        Raises:
            ShardError: the run has no such layout, a file is not as large as its record states, or one is reached
                through a link.
        """
        checked = [(checked_path(output, record), record.rows) for record in self.packed_records(output, layout)]
        return [path for path, rows in checked if rows]

    def packed_records(self, output: RunPlace, layout: str) -> Sequence[Record]:
        """The records of the layout's files, in partition order; `output` is the run's place in errors.

        Raises:
            ShardError: the run has no such layout.
        """
        layouts = self.layouts
        if layout not in layouts:
            guess, available = did_you_mean(layout, layouts), ", ".join(sorted(layouts)) or "none"
            raise ShardError(f"{output} has no layout {layout!r}; available: {available}{guess}")
        return layouts[layout].records


def checked_path(output: Path, record: Record) -> Path:
    """The path of a record's file under `output`.

    Raises:
        ShardError: it is not as large as its record states.
        OutputPathError: it is reached through a link, or is a pipe or the like.
    """
    path = inside(output, record.path)
    size = path.stat().st_size if path.exists() else None
    if size != record.bytes:
        found = "is missing" if size is None else f"has {size} bytes"
        raise ShardError(f"{path} {found}; its record states {record.bytes} bytes. `colophon verify` checks every file")
    return path


def written_files(
    manifest: Manifest, *, writer: str = "", before: Collection[str] = ()
) -> tuple[str, dict[str, bytes]]:
    """The text of `manifest.json`, with its checksum, and the tables that it names by their paths under the output.

    Args:
        manifest: the manifest.
        writer: a part of the names of new tables: with a different one for each run, no two runs write one name.
        before: the tables of the manifest before, which keep their names if their content is the same.
    """
    tables: dict[str, bytes] = {}

    def named(stem: str, rows: TableRows[Any]) -> str:
        content = table_bytes(rows.table)
        end = f"-{sha256(content).hexdigest()[:_DIGITS]}.parquet"
        same = (path for path in before if path.startswith(f"{TABLES}/{stem}-") and path.endswith(end))
        path = next(same, f"{TABLES}/{stem}{writer and '-'}{writer}{end}")
        tables[path] = content
        return path

    outputs = {
        output: {"settings": content.settings, "records": named(output, RecordTable.of(output, content.records))}
        for output, content in manifest.outputs.items()
    }
    partitions = named("partitions", PartitionTable.of(manifest.partitions))
    head = manifest.model_copy(update={"partitions": [], "outputs": {}})
    value = {**head.model_dump(mode="json"), "partitions": partitions, "outputs": outputs}
    return with_checksum(json.dumps(value, indent=1, ensure_ascii=False)), tables


def read_manifest(output: RunPlace) -> Manifest:
    """The manifest of the run whose `output.path` is `output`.

    Raises:
        ShardError: it is missing, is a link, or see `parse_manifest`.
        StoreReadError: the object store fails.
    """
    content = _read_file(output, MANIFEST_NAME)
    if content is None:
        raise ShardError(f"{output / MANIFEST_NAME} does not exist: {output} is not the output of a finished run")
    return parse_manifest(content, where=str(output), read=partial(_read_file, output))


def has_manifest(output: RunPlace) -> bool:
    """Whether `output` is that of a run that has ended.

    Raises:
        StoreReadError: the object store fails.
    """
    return (
        (output / MANIFEST_NAME).exists() if isinstance(output, Path) else _read_file(output, MANIFEST_NAME) is not None
    )


def _read_file(output: RunPlace, path: str) -> bytes | None:
    if isinstance(output, Path):
        return read_regular(inside(output, path), remedy=REMEDY)
    from colophon.shards.stores.objects import read_object  # fsspec is needed for stores alone

    return read_object(output / path)


def parse_manifest(content: str | bytes, *, where: str, read: Callable[[str], bytes | None]) -> Manifest:
    """The manifest in the content of a `manifest.json`.

    Args:
        content: of the file.
        where: the output, in errors.
        read: returns the content of a table, by its path under the output; None if it does not exist.

    Raises:
        ShardError: it is damaged, or was written in a different version of the format. A damaged table raises
            DamagedFileError when it is first used.
    """
    file = f"{where}/{MANIFEST_NAME}"
    value = parse_state(content, where=file, remedy=REMEDY)
    manifest = validated(Manifest, _with_tables(value, where=where, read=read), where=file, remedy=REMEDY)
    if manifest.format_version != FORMAT_VERSION:
        version = manifest.format_version
        raise ShardError(f"{file}: format version {version}; this Colophon reads version {FORMAT_VERSION}. {UPDATE}")
    return manifest


def named_tables(content: bytes) -> set[str]:
    """The paths of the tables that the content of a `manifest.json` names; none if it is damaged."""
    try:
        value = parse_state(content, where=MANIFEST_NAME, remedy=REMEDY)
    except DamagedFileError:
        return set()
    outputs = value.get("outputs")
    records = (
        [each.get("records") for each in outputs.values() if isinstance(each, dict)]
        if isinstance(outputs, dict)
        else []
    )
    return {path for path in (value.get("partitions"), *records) if isinstance(path, str) and _TABLE.fullmatch(path)}


def _with_tables(value: dict[str, Any], *, where: str, read: Callable[[str], bytes | None]) -> dict[str, Any]:
    """The JSON value of a `manifest.json` with tables in place of their paths."""

    def table(path: str, schema: pa.Schema) -> pa.Table:
        name = _TABLE.fullmatch(path)
        if name is None:
            raise DamagedFileError(f"{where}/{MANIFEST_NAME}: damaged: {path[:80]!r} is no table of a run. {REMEDY}")
        content = read(path)
        if content is None:
            reason = "a later run has replaced it, or `colophon run` writes it"
            raise DamagedFileError(f"{where}/{path} is missing: {reason}")
        return parse_table(content, schema=schema, digest=name[1], where=f"{where}/{path}", remedy=REMEDY)

    partitions, outputs = value.get("partitions"), value.get("outputs")
    if isinstance(partitions, str):
        value = {**value, "partitions": PartitionTable(partial(table, partitions, PARTITIONS))}
    if isinstance(outputs, dict):
        value = {**value, "outputs": {output: _with_records(output, each, table) for output, each in outputs.items()}}
    return value


def _with_records(output: str, value: Any, table: Callable[[str, pa.Schema], pa.Table]) -> Any:
    path = value.get("records") if isinstance(value, dict) else None
    return {**value, "records": RecordTable(output, partial(table, path, RECORDS))} if isinstance(path, str) else value
