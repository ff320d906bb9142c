"""The manifest of a run, and the commit records it is built from.

A commit record describes one output file: its content and what it was made from. The manifest lists the records of a
run. Readers trust nothing else, so a half-written or left-over file is never read.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from colophon.shards.common.errors import ShardError, did_you_mean
from colophon.shards.common.output_paths import inside
from colophon.shards.common.state_files import parse_model, read_regular, with_checksum
from colophon.shards.outputs import Output, StageName
from colophon.shards.schema import FORMAT_VERSION

REMEDY = "Delete it; `colophon run` writes it again"
"""The remedy for a damaged file of a run's state."""
MANIFEST_NAME = "manifest.json"
_LONGEST_NAME = 255
"""Bytes of a name in every common file system."""
_LONGEST_SHOWN = 80
_ROW_GROUP = re.compile(r"(-[0-9a-f]{32})-[0-9]+$")
"""The end of the name of a part of a file: a hash of the file's place, and the first row group or a number."""
MAX_EXAMPLES = 3
"""Examples of a quarantine entry."""


OF_WRONG_TYPE = "_of_wrong_type"
"""The end of the keys of counts: `url_of_wrong_type` URLs were no strings, and became null."""

TOO_LONG = "_too_long"
"""The end of the keys of counts: `url_too_long` URLs had more than 64 KiB, and became null."""

LINES_OF_PIECE = "lines_of_piece"
"""The key of a count: the lines of a piece of a JSONL file, blank ones included."""

RECORDS_OF_KIND = "records_"
"""The beginning of the keys of counts: `records_request` records of WARC files were requests, and no documents."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class QuarantineExample(_Frozen):
    """One of the lines or records that an entry counts."""

    line: int
    reason: str


class QuarantineEntry(_Frozen):
    """An input that was excluded, and the reason: a file, a partition, or all of its lines with the same fault."""

    source: str
    partition: str | None = None
    """None if the whole file was excluded before it was cut into partitions."""
    stage: str
    """The stages that could not use it: `input`, `annotate, tokenize` or `pack`."""
    reason: str
    line: int | None = None
    """The first line of a JSONL file, or record of a WARC file, that was excluded; None if the whole was."""
    rows: int | None = None
    """Documents excluded; None if they were not counted."""
    count: int = Field(1, ge=1)
    """The lines or records that were excluded for the same reason; 1 for a file or a partition."""
    examples: list[QuarantineExample] = Field([], max_length=MAX_EXAMPLES)
    """The first of them, if they are several."""


class LeftAside(_Frozen):
    """Files or directories of one kind that a search of the input did not take for data."""

    kind: str
    """`hidden file`, `hidden directory`, `side file`, `no suffix`, `unknown suffix .txt`, ..."""
    count: int
    examples: list[str]
    """Up to three of them."""


class Record(_Frozen):
    """One committed output file."""

    output: str = Field(validation_alias=AliasChoices("output", "stage"))
    """The file's directory, see `Output`. Records of older runs have the key `stage`, which is still read."""
    partition: str
    path: str
    """Relative to the run's output directory."""
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str
    fingerprint: str
    """sha256 of the output's settings and of everything that the file was made from."""
    counts: dict[str, int] = {}
    """Totals of the file: tokens by role, documents without text, metadata cut, ..."""
    content: dict[str, str] = {}
    """sha256 of each input column that the file was made from; `colophon verify --inputs` compares them."""
    problems: list[QuarantineEntry] = []
    """Lines and records of the input that are no documents; a manifest lists them once, under `quarantine`."""

    @field_validator("path", "output")
    @classmethod
    def _path_stays_inside(cls, path: str) -> str:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise ValueError(f"path {path[:_LONGEST_SHOWN]!r} leaves the output directory")
        if "\0" in path or any(len(part.encode()) > _LONGEST_NAME for part in pure.parts):
            raise ValueError(f"path {path[:_LONGEST_SHOWN]!r} is not one of a file")
        return path

    @field_validator("partition")
    @classmethod
    def _partition_is_a_plain_name(cls, partition: str) -> str:
        is_long = len(partition.encode()) > _LONGEST_NAME
        if not partition or partition.startswith(".") or "/" in partition or "\0" in partition or is_long:
            raise ValueError(f"partition {partition[:_LONGEST_SHOWN]!r} is not a plain name")
        return partition


def file_of(partition: str) -> str:
    """The part of a partition's name that all partitions of its file have: `part-<32 hex>` of `part-<32 hex>-00008`."""
    return _ROW_GROUP.sub(r"\1", partition)


class PartitionInfo(_Frozen):
    """The part of an input file that one unit of work covers."""

    name: str
    source: str
    """The input file as the recipe names it."""
    rows: int | None = None
    """Documents; None where the file has no footer that states them."""
    bytes: int | None = None
    identity: str = ""
    """The input file's size, time of change and footer when it was read, as a digest; empty in older manifests."""
    source_name: str | None = None
    """The name of the source in the recipe."""

    @property
    def file(self) -> str:
        """Distinguishes input files, also web addresses that differ in their query, which `source` does not have."""
        return file_of(self.name)


class OutputManifest(_Frozen):
    """The settings and committed files of one output, in the order of the run's partitions."""

    settings: dict[str, Any]
    records: list[Record]


class Manifest(_Frozen):
    """The content of `manifest.json`."""

    checksum: str = ""
    """sha256 of the file's other bytes, see `state_files.with_checksum`; empty in older manifests."""
    format_version: int = FORMAT_VERSION
    colophon_version: str
    recipe: dict[str, Any]
    partitions: list[PartitionInfo]
    outputs: dict[str, OutputManifest] = Field(validation_alias=AliasChoices("outputs", "stages"))
    """By directory, see `Output`. Manifests of older runs have the key `stages`, which is still read."""
    quarantine: list[QuarantineEntry] = []
    left_aside: list[LeftAside] = []
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
        layouts = self.layouts
        if layout not in layouts:
            guess, available = did_you_mean(layout, layouts), ", ".join(sorted(layouts)) or "none"
            raise ShardError(f"{output} has no layout {layout!r}; available: {available}{guess}")
        checked = [(checked_path(output, record), record.rows) for record in layouts[layout].records]
        return [path for path, rows in checked if rows]


def manifest_text(manifest: Manifest) -> str:
    """The text of a `manifest.json`, with its checksum."""
    return with_checksum(manifest.model_dump_json(indent=1))


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


def parse_quarantine(content: bytes, *, where: str) -> list[QuarantineEntry]:
    """The entries in the content of a `quarantine.jsonl`; `where` is its path in errors.

    Raises:
        DamagedFileError: a line is not an entry.
    """
    lines = content.split(b"\n")  # a reason may hold other line ends
    return [
        parse_model(QuarantineEntry, line, where=f"{where}: line {number}", remedy="`colophon run` writes it")
        for number, line in enumerate(lines, start=1)
        if line
    ]


def read_manifest(output: Path) -> Manifest:
    """The manifest of the run whose `output.path` is `output`.

    Raises:
        ShardError: it is missing, is a link, or see `parse_manifest`.
    """
    path = inside(output, MANIFEST_NAME)
    content = read_regular(path, remedy=REMEDY)
    if content is None:
        raise ShardError(f"{path} does not exist: {output} is not the output of a finished run")
    return parse_manifest(content, where=str(path))


def parse_manifest(content: str | bytes, *, where: str) -> Manifest:
    """The manifest in the content of a `manifest.json`; `where` is its path in errors.

    Raises:
        ShardError: it is damaged, or was written in a different version of the format.
    """
    manifest = parse_model(Manifest, content, where=where, remedy=REMEDY)
    if manifest.format_version != FORMAT_VERSION:
        version = manifest.format_version
        raise ShardError(f"{where}: format version {version}; this Colophon reads version {FORMAT_VERSION}")
    return manifest
