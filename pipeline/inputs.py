"""From the paths of a recipe to partitions: the unit of work, of retry and of resume.

A Parquet file is cut at row groups, from its footer alone; any other file is one partition. A partition's name depends
only on how the recipe spells the file's path and on where in the file it begins, so appending files renames nothing.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ColophonError, UsageError, one_line
from pipeline.flow import in_threads
from pipeline.recipe import InputFormat, InputSection
from pipeline.transient import is_transient, retried
from shards.manifest import QuarantineEntry

_SUFFIXES: dict[str, InputFormat] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".arrow": "arrow",
    ".warc": "warc",
}
_COMPRESSIONS = (".gz", ".zst")
FINEWEB_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("text", "id", "dump", "url", "date", "file_path", "language"), pa.string()),
    "language_score": pa.float64(),
    "token_count": pa.int64(),
    "score": pa.float64(),
    "int_score": pa.int64(),
}
"""The columns of FineWeb and FineWeb-Edu. These names always mean the input's columns."""


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One file of the input."""

    source: str
    """As the recipe spells it: the file's identity in names and records."""
    url: str
    """Absolute, for workers whose working directory is another."""
    format: InputFormat
    listed: tuple[int, str] | None = None
    """Size and identity, where the listing that found the file told them: asking for each of 10,000 would take long."""


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


def expand(config: InputSection) -> Iterator[InputFile]:
    """The files that the recipe's paths name, each once."""
    seen: set[str] = set()
    for path in config.paths:
        for file in _expand_one(path, config.format):
            if file.url not in seen:
                seen.add(file.url)
                yield file


def _expand_one(path: str, declared: InputFormat | None) -> list[InputFile]:
    found = list(_remote(path) if "://" in path else _local(path))
    searched = not (len(found) == 1 and found[0][0] == path)
    files = []
    for source, url, listed in found:
        # A search takes what looks like data and leaves stray and hidden files alone; a named file must be known.
        hidden = source.rsplit("/", 1)[-1].startswith((".", "_"))
        file_format = declared or format_of(source)
        if searched and (hidden or file_format is None):
            continue
        if file_format is None:
            raise UsageError(
                f"input.paths: {source}: no format known by this suffix; known: {', '.join(_SUFFIXES)} "
                f"(also {', '.join(_COMPRESSIONS)}), or set input.format"
            )
        files.append(InputFile(source=source, url=url, format=file_format, listed=listed))
    if not files:
        raise UsageError(f"input.paths: {path}: no such file, or no data file there")
    return files


def _local(path: str) -> Iterator[tuple[str, str, None]]:
    root = Path(path).expanduser()
    if root.is_file():
        yield path, str(root.absolute()), None
        return
    pattern = f"{glob.escape(str(root))}/**/*" if root.is_dir() else str(root)
    for match in sorted(glob.glob(pattern, recursive=True)):
        if Path(match).is_file():
            yield match, str(Path(match).absolute()), None


def _remote(path: str) -> Iterator[tuple[str, str, tuple[int, str] | None]]:
    filesystem, inner = _filesystem(path)
    try:
        matches = retried(lambda: _listed(filesystem, inner))
    except Exception as error:
        raise UsageError(f"input.paths: {path}: cannot be listed: {one_line(error)}") from error
    for match, info in sorted(matches.items()):
        url = path if match == inner else filesystem.unstrip_protocol(match)
        yield url, url, None if info.get("size") is None else _size_and_identity(info)


def _listed(filesystem: Any, inner: str) -> dict[str, Mapping[str, Any]]:
    """The files that a path names, with what the store tells of each."""
    if any(c in inner for c in "*?["):
        found = filesystem.glob(inner, detail=True)
    else:
        # Not by `exists` and `isdir`: of a store that fails, some file systems say that nothing is there.
        try:
            info = filesystem.info(inner)
        except FileNotFoundError as error:
            if is_transient(error) or str(error) not in (inner, f"/{inner}"):
                raise
            return {}
        found = filesystem.find(inner, detail=True) if info["type"] == "directory" else {inner: info}
    return {name: info for name, info in found.items() if info["type"] != "directory"}


def _filesystem(path: str) -> tuple[Any, str]:
    try:
        filesystem, inner = fsspec.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise UsageError(f"input.paths: {path}: {error}") from error
    return filesystem, inner


def format_of(source: str) -> InputFormat | None:
    """The format that the file's suffix says, a compression's suffix taken off."""
    name = source.lower()
    for compression in _COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((known for suffix, known in _SUFFIXES.items() if name.endswith(suffix)), None)


def _plan_in_attempts(
    file: InputFile, *, config: InputSection, needs: Sequence[ColumnNeed]
) -> list[Partition] | QuarantineEntry:
    try:
        return retried(lambda: _plan_file(file, config=config, needs=needs))
    except Exception as error:
        if not is_transient(error):
            raise
        raise ColophonError(f"{file.source}: {one_line(error)} (tried again, in vain)") from error


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
    size, identity = file.listed or _size_and_identity(_info(file.url))
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


_VERSIONS = ("ETag", "etag", "blob_id", "mtime", "Last-Modified", "LastModified")
"""What file systems call that which changes with a file's content, the surest first; `blob_id` is the hub's."""


def _info(url: str) -> Mapping[str, Any]:
    filesystem, path = fsspec.url_to_fs(url)
    info: Mapping[str, Any] = filesystem.info(path)
    return info


def _size_and_identity(info: Mapping[str, Any]) -> tuple[int, str]:
    changed = next((info[name] for name in _VERSIONS if info.get(name)), None)
    return int(info["size"] or 0), _digest(f"{info['size']} {changed}".encode())


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
    return _digest(sink.getvalue())


def present_identity(partition: Partition) -> str:
    """What `Partition.identity` would be if the input were planned now.

    Raises:
        OSError, pa.ArrowException: the file cannot be read.
    """
    if partition.format != "parquet":
        filesystem, path = fsspec.url_to_fs(partition.url)
        filesystem.invalidate_cache(path)  # of what was listed when the run was planned
        return _size_and_identity(_info(partition.url))[1]
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
    for suffix in (*_COMPRESSIONS, *_SUFFIXES):
        stem = stem.removesuffix(suffix)
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[:48]
    place = "" if first_row_group is None else f"-{first_row_group:05d}"
    return f"{readable}-{_digest(source.encode())[:12]}{place}"


def _digest(data: Any) -> str:
    return sha256(data).hexdigest()
