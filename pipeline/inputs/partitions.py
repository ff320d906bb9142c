"""From the paths of a recipe to partitions: the unit of work, of retry and of resume.

A Parquet file is cut at row groups, from its footer alone; any other file is one partition. A partition's name depends
only on how the recipe spells the file's path and on where in the file it begins, so appending files renames nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.concurrency import in_threads
from colophon.pipeline.errors import UsageError, one_line
from colophon.pipeline.inputs.files import (
    COMPRESSIONS,
    SUFFIXES,
    InputFile,
    digest,
    expand,
    file_info,
    size_and_identity,
)
from colophon.pipeline.recipe.schema import InputFormat, InputSection
from colophon.pipeline.retry import is_transient, retried
from colophon.shards.common.errors import ColophonError
from colophon.shards.manifest import QuarantineEntry

FINEWEB_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("text", "id", "dump", "url", "date", "file_path", "language"), pa.string()),
    "language_score": pa.float64(),
    "token_count": pa.int64(),
    "score": pa.float64(),
    "int_score": pa.int64(),
}
"""The columns of FineWeb and FineWeb-Edu. These names always mean the input's columns."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """The part of a file that one worker works on at a time."""

    name: str
    source: str
    url: str
    format: InputFormat
    row_groups: tuple[int, int] | None
    """First and one past the last row group; None: the whole file."""
    first_row: int
    """The partition's first row in its file; document ids made up for rows without one count on from it."""
    rows: int | None
    """Documents, where a footer tells."""
    bytes: int
    """Uncompressed bytes of the row groups, else the file's size: what the work costs, roughly."""
    identity: str
    """Changes when the file's content does."""
    text: str = "text"
    """The input's name for the text column: a JSON line without it is no document, whatever columns are read."""


@dataclass(frozen=True)
class Inputs:
    """What there is to work on, and what cannot be read at all."""

    partitions: tuple[Partition, ...]
    quarantine: tuple[QuarantineEntry, ...]


@dataclass(frozen=True)
class ColumnNeed:
    """A column that a stage needs: its FineWeb name, what it is called in the input, whether it must be there."""

    name: str
    in_input: str
    required: bool = True


def plan_inputs(
    config: InputSection, *, needs: Sequence[ColumnNeed], files: Sequence[InputFile] | None = None
) -> Inputs:
    """All partitions of the input in the order of the recipe's paths, files of a glob sorted by name.

    A file that cannot be opened or lacks a needed column is quarantined as a whole.

    Args:
        config: paths, format, how large a partition is.
        needs: columns that every file must have.
        files: what `expand` found, where it is known already.

    Raises:
        UsageError: a path that matches nothing, a suffix of no known format, or no file with the needed columns.
        ColophonError: a file's server fails, also when it is asked again.
    """
    files = list(expand(config)) if files is None else files
    plans = in_threads(lambda file: _plan_in_attempts(file, config=config, needs=needs), files)
    partitions = tuple(p for plan in plans if not isinstance(plan, QuarantineEntry) for p in plan)
    quarantine = tuple(plan for plan in plans if isinstance(plan, QuarantineEntry))
    if quarantine and len(quarantine) == len(plans):
        raise UsageError(f"no input file can be read; the first, {quarantine[0].source}: {quarantine[0].reason}")
    return Inputs(partitions, quarantine)


def _plan_in_attempts(
    file: InputFile, *, config: InputSection, needs: Sequence[ColumnNeed]
) -> list[Partition] | QuarantineEntry:
    try:
        return retried(lambda: _plan_file(file, config=config, needs=needs))
    except Exception as error:
        if not is_transient(error):
            raise
        raise ColophonError(f"{file.source}: {one_line(error)} (retries exhausted)") from error


def _plan_file(
    file: InputFile, *, config: InputSection, needs: Sequence[ColumnNeed]
) -> list[Partition] | QuarantineEntry:
    try:
        if file.format == "parquet":
            return _plan_parquet(file, config=config, needs=needs)
        return [_whole_file(file, text=config.columns.get("text", "text"))]
    except (pa.ArrowException, OSError, ValueError) as error:
        if is_transient(error):
            raise
        return QuarantineEntry(source=file.source, stage="input", reason=one_line(error))


def _whole_file(file: InputFile, *, text: str) -> Partition:
    size, identity = file.listed or size_and_identity(file_info(file.url))
    return Partition(
        name=_name(file.source, first_row_group=None),
        source=file.source,
        url=file.url,
        format=file.format,
        row_groups=None,
        first_row=0,
        rows=None,
        bytes=size,
        identity=identity,
        text=text,
    )


@contextmanager
def _opened(url: str) -> Iterator[pq.ParquetFile]:
    with ExitStack() as stack:
        opened = fsspec.open(url, "rb") if "://" in url else pa.OSFile(url)
        source = stack.enter_context(opened)  # given a path, pyarrow takes 40 µs to find out what kind it is
        yield stack.enter_context(pq.ParquetFile(source))


def _footer_identity(footer: pq.FileMetaData) -> str:
    """The footer holds every column chunk's place, size and statistics: it stands for the content."""
    sink = pa.BufferOutputStream()
    footer.write_metadata_file(sink)
    return digest(sink.getvalue())


def present_identity(partition: Partition) -> str:
    """What `Partition.identity` would be if the input were planned now.

    Raises:
        OSError, pa.ArrowException: the file cannot be read.
    """
    if partition.format != "parquet":
        filesystem, path = fsspec.url_to_fs(partition.url)
        filesystem.invalidate_cache(path)  # of what was listed when the run was planned
        return size_and_identity(file_info(partition.url))[1]
    with _opened(partition.url) as parquet:
        return _footer_identity(parquet.metadata)


def _plan_parquet(file: InputFile, *, config: InputSection, needs: Sequence[ColumnNeed]) -> list[Partition]:
    with _opened(file.url) as parquet:
        footer = parquet.metadata
        missing = missing_columns(parquet.schema_arrow, needs)
    if missing:
        raise ValueError(missing)
    whole = Partition(
        name="",
        source=file.source,
        url=file.url,
        format="parquet",
        row_groups=None,
        first_row=0,
        rows=0,
        bytes=0,
        identity=_footer_identity(footer),
    )
    partitions, first_row = [], 0
    for begin, end in _cut([footer.row_group(i).total_byte_size for i in range(footer.num_row_groups)], config):
        groups = [footer.row_group(i) for i in range(begin, end)]
        rows = sum(group.num_rows for group in groups)
        if rows:
            part = replace(whole, row_groups=(begin, end), first_row=first_row, rows=rows)
            size = sum(group.total_byte_size for group in groups)
            partitions.append(replace(part, name=_name(file.source, first_row_group=begin), bytes=size))
        first_row += rows
    if first_row != footer.num_rows:  # a footer has no checksum: rows would be missing and nobody told
        raise ValueError(f"its row groups have {first_row} rows, the footer promises {footer.num_rows}")
    return partitions


def missing_columns(schema: pa.Schema, needs: Sequence[ColumnNeed]) -> str | None:
    """What `schema` lacks, in one line, or None."""
    for need in needs:
        if need.required and need.in_input not in schema.names:
            return f"no column {need.in_input!r}; columns: {', '.join(schema.names)}"
        if need.name == "text":
            found = schema.field(need.in_input).type
            kind = found.value_type if pa.types.is_dictionary(found) else found
            if not any(
                is_text(kind) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
            ):
                return f"column {need.in_input!r} is {found}, not string"
    return None


def _cut(sizes: Sequence[int], config: InputSection) -> Iterator[tuple[int, int]]:
    """Ranges of row groups of about `partition_bytes` each; a row group larger than that is one of its own."""
    begin, filled = 0, 0
    for i, size in enumerate(sizes):
        if filled and filled + size > config.partition_bytes:
            yield begin, i
            begin, filled = i, 0
        filled += size
    if begin < len(sizes):
        yield begin, len(sizes)


def _name(source: str, *, first_row_group: int | None) -> str:
    stem = source.rsplit("/", 1)[-1]
    for suffix in (*COMPRESSIONS, *SUFFIXES):
        stem = stem.removesuffix(suffix)
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[:48]
    place = "" if first_row_group is None else f"-{first_row_group:05d}"
    return f"{readable}-{digest(source.encode())[:12]}{place}"
