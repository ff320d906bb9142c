"""Commit records, partitions and quarantine entries: what a run notes about its files and its input.

A commit record describes one output file: its content and what it was made from.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from colophon.shards.common.state_files import parse_model

REMEDY = "Delete it; `colophon run` writes it again"
"""The remedy for a damaged file of a run's state."""
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


class Frozen(BaseModel):
    """A value that is read from a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class QuarantineExample(Frozen):
    """One of the lines or records that an entry counts."""

    line: int
    reason: str


class QuarantineEntry(Frozen):
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


class Record(Frozen):
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


def file_and_content(partition: str, identity: str) -> str:
    """The file of a partition and its content, in one string that changes with either."""
    return f"{file_of(partition)} {identity}"


class PartitionInfo(Frozen):
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
