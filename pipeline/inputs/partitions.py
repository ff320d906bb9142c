"""The partitions of an input, planned from the paths of a recipe.

A Parquet file is cut at row groups, from its footer alone; a large JSONL file at line ends, without reading it (see
`jsonl.pieces`); any other file is one partition. A partition's name depends only on the file's place and on the
partition's first row group or the number of the piece: appending files renames nothing, nor does a different spelling
of the recipe's paths.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import pyarrow.parquet as pq

from colophon.pipeline.concurrency import in_threads, in_threads_if_waiting
from colophon.pipeline.errors import InputError, UsageError
from colophon.pipeline.inputs.columnar.arrow_reader import arrow_schema
from colophon.pipeline.inputs.columnar.csv_reader import csv_schema
from colophon.pipeline.inputs.columnar.footers import footer_of, parquet_identity, read_footer
from colophon.pipeline.inputs.columnar.schemas import FileSchemas
from colophon.pipeline.inputs.columnar.text_reader import text_schema
from colophon.pipeline.inputs.columns import ColumnNeed, column_names, column_problem
from colophon.pipeline.inputs.disguises import disguise_of
from colophon.pipeline.inputs.failures import input_errors
from colophon.pipeline.inputs.files import digest, file_info, size_and_identity
from colophon.pipeline.inputs.jsonl.pieces import Piece, cut, most_uncut_bytes
from colophon.pipeline.inputs.mappings import Mappings
from colophon.pipeline.inputs.partition_size import ASSUMED_WORKERS, automatic_bytes
from colophon.pipeline.inputs.partition_table import Partition, Partitions, PlannedFile
from colophon.pipeline.inputs.search.find import find_files
from colophon.pipeline.inputs.search.formats import compression_of, stem_of
from colophon.pipeline.inputs.search.found import InputFile, Search, shown
from colophon.pipeline.recipe.schema import InputSection
from colophon.shards.common.errors import ColophonError
from colophon.shards.common.url_secrets import without_query
from colophon.shards.manifest import LeftAside
from colophon.shards.records import QuarantineEntry
from colophon.shards.stores.filesystems import filesystem_of
from colophon.shards.stores.retry import retried_for

SCHEMAS = {"arrow": arrow_schema, "csv": csv_schema, "text": text_schema}
"""By format: the schema of a file, from one read near its beginning."""
_UNUSUAL = re.compile(r"[^A-Za-z0-9_-]+")
_MANY_TEXT_FILES = 10_000
_PLANNED_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Inputs:
    """The partitions of an input, and the files that cannot be read."""

    partitions: Partitions
    quarantine: tuple[QuarantineEntry, ...]
    left_aside: tuple[LeftAside, ...] = ()
    """Files and directories that the search did not take for data, counted by kind."""
    notes: tuple[str, ...] = ()
    """Lines about chosen sizes, large files that are not cut, and columns that a source does not have."""
    chosen_bytes: Mapping[str, int] = field(default_factory=dict)
    """The sizes of partitions for `partition_bytes = "auto"`, by section of the recipe."""


def plan_inputs(
    *sources: InputSection,
    needs: Sequence[ColumnNeed],
    search: Search | None = None,
    workers: int = ASSUMED_WORKERS,
    kept_bytes: Mapping[str, int] | None = None,
) -> Inputs:
    """All partitions of the input in the order of the recipe's paths, files of a glob sorted by name.

    A file that cannot be opened or lacks a needed column is quarantined as a whole. So is one of the first JSONL files
    if none of its first lines is a document.

    Args:
        sources: paths, format and partition size of each source.
        needs: columns that every file must have.
        search: the result of `find_files`, if the caller has it.
        workers: their number, for `partition_bytes = "auto"`.
        kept_bytes: the sizes that earlier runs chose for it, by section of the recipe.

    Raises:
        UsageError: see `find_files`; no file of a source can be read and has the needed columns; or none of them has a
            column that the source or a need with a `key` names.
        ColophonError: a file's server fails, retries included, or two partitions have one name.
    """
    search = find_files(*sources) if search is None else search
    files: dict[str, list[InputFile]] = {source.key: [] for source in sources}
    for file in search.files:
        files[file.key].append(file)
    chosen = {
        source.key: (kept_bytes or {}).get(source.key) or automatic_bytes(_total(files[source.key]), workers=workers)
        for source in sources
        if source.partition_bytes == "auto"
    }
    sources = tuple(
        source.model_copy(update={"partition_bytes": chosen[source.key]}) if source.key in chosen else source
        for source in sources
    )
    planned = [_plan_source(source, files[source.key], needs, search.quarantine) for source in sources]
    partitions = Partitions.joined([plan.partitions for plan in planned])
    check_names(partitions)
    quarantine = (*search.quarantine, *(entry for plan in planned for entry in plan.quarantine))
    notes = [
        *(f"{key}.partition_bytes = {size}, {size >> 20} MiB, chosen by auto" for key, size in chosen.items()),
        *(
            note
            for source, plan in zip(sources, planned, strict=True)
            for note in (*_notes(source, plan), *_text_notes(source, plan))
        ),
    ]
    for need in needs:
        _check_in_one_source(need, planned)
    return Inputs(partitions, quarantine, search.left_aside, tuple(notes), chosen)


def _total(files: Sequence[InputFile]) -> int:
    """The bytes of the files as they are stored."""
    unlisted = [file for file in files if file.listed is None]
    return sum(file.listed[0] for file in files if file.listed is not None) + sum(in_threads(_stored_bytes, unlisted))


def _stored_bytes(file: InputFile) -> int:
    try:
        return size_and_identity(retried_for(file.source, lambda: file_info(file.url)))[0]
    except OSError:  # the plan names it
        return 0


@dataclass(frozen=True)
class _PlannedSource:
    """The plan of one source."""

    partitions: Partitions
    quarantine: list[QuarantineEntry]
    """The files that cannot be used."""
    absent: list[ColumnNeed]
    """The needed columns that it does not have: they are null."""

    @property
    def has_lines(self) -> bool:
        """Whether it has JSONL files, each of whose lines has its own keys."""
        return "jsonl" in self.partitions.formats


def _plan_source(
    config: InputSection,
    files: Sequence[InputFile],
    needs: Sequence[ColumnNeed],
    unreadable: Sequence[QuarantineEntry],
) -> _PlannedSource:
    """The plan of a source's files; `unreadable` are the files that the search could not use."""
    needs = [need.in_source(config.name) for need in needs]
    needs = [need for need in needs if not need.is_name_of(config.name)]
    mappings, schemas = Mappings(config, files, needs), FileSchemas(needs)

    def plan_file(file: InputFile) -> PlannedFile | QuarantineEntry:
        return retried_for(file.source, lambda: _plan_file(file, mappings, config=config, needs=needs, schemas=schemas))

    parts: list[Partitions] = []
    is_any = False
    quarantine: list[QuarantineEntry] = []
    for start in range(0, len(files), _PLANNED_AT_ONCE):
        plans = in_threads_if_waiting(plan_file, files[start : start + _PLANNED_AT_ONCE])
        quarantine += [plan for plan in plans if isinstance(plan, QuarantineEntry)]
        planned = [plan for plan in plans if isinstance(plan, PlannedFile)]
        is_any = is_any or bool(planned)
        parts.append(Partitions.of_files(planned))
    if not is_any:
        first = (*quarantine, *unreadable)[0]
        where = "" if config.key == "input" else f"{config.key}: "
        raise UsageError(f"{where}no input file can be read; the first, {first.source}: {first.reason}")
    mappings.check()
    incomplete = mappings.incomplete()
    partitions = Partitions.joined(parts)
    return _PlannedSource(
        partitions=partitions.without_sources(incomplete) if incomplete else partitions,
        quarantine=[
            *quarantine,
            *(
                QuarantineEntry(source=file.source, stage="input", reason=incomplete[file.source])
                for file in files
                if file.source in incomplete
            ),
        ],
        absent=mappings.absent,
    )


def _check_in_one_source(need: ColumnNeed, planned: Sequence[_PlannedSource]) -> None:
    """Check that a column which sources may lack is in one of them, as far as that is known of JSON lines.

    Raises:
        UsageError: it is in none.
    """
    is_absent = need.optional_in and all(need.name in [one.name for one in plan.absent] for plan in planned)
    if is_absent and (need.key is not None or not all(plan.has_lines for plan in planned)):
        raise UsageError(f"{'' if need.key is None else f'{need.key}: '}no file of any source has {need.in_input!r}")


def _notes(config: InputSection, plan: _PlannedSource) -> Iterator[str]:
    """Lines on columns that a source does not have, and on JSONL files that are larger than a partition should be."""
    for need in plan.absent:
        if plan.has_lines:
            yield f"source {config.name}: no {need.in_input!r} in its first lines: null in all documents without it"
        else:
            yield f"source {config.name}: no column {need.in_input!r}: null for all its documents"
    large = plan.partitions.uncut_lines(larger_than=most_uncut_bytes(_bytes_of(config)))
    if len(large):
        yield (
            f"{config.key}: JSONL files larger than partition_bytes that are not cut: {len(large):,}, the first "
            f"{shown(large[0].source)} of {large[0].bytes / 1e6:,.0f} MB. Plain files are cut, and zstd in several "
            "frames that state their sizes, of stores that send parts"
        )


def _text_notes(config: InputSection, plan: _PlannedSource) -> Iterator[str]:
    """A line if there are very many text files."""
    num_files = plan.partitions.formats["text"]
    if num_files > _MANY_TEXT_FILES:
        yield (
            f"{config.key}: {num_files:,} text files are one partition each, with files and records of their own. "
            "JSON lines with many documents a file take less time and fewer files"
        )


def check_names(partitions: Partitions) -> None:
    """Check that no two partitions have one name: the files of one would replace those of the other.

    Raises:
        ColophonError: two have.
    """
    if len(partitions.names.unique()) == len(partitions):
        return
    known: dict[str, Partition] = {}
    for partition in partitions:
        other = known.setdefault(partition.name, partition)
        if other is not partition:
            raise ColophonError(
                f"{other.source} and {partition.source} both have the partition name {partition.name}. Rename a file"
            )


def _plan_file(
    file: InputFile, mappings: Mappings, *, config: InputSection, needs: Sequence[ColumnNeed], schemas: FileSchemas
) -> PlannedFile | QuarantineEntry:
    try:
        with input_errors():
            if file.format == "parquet":
                return _plan_parquet(file, mappings, config=config, schemas=schemas)
            size, identity = file.listed or size_and_identity(file_info(file.url))
            if not size and compression_of(file.url) is not None:
                raise InputError("it is empty, as no compressed file is: it was cut, or its writer was not closed")
            is_lines = file.format == "jsonl"
            pieces = cut(file.url, size, piece_bytes=_bytes_of(config)) if is_lines else ()
            if problem := _problem(file, mappings, needs, is_cut=bool(pieces)):
                raise InputError(problem)
            return _planned_whole(file, config, size, identity, pieces)
    except InputError as error:
        reason = disguise_of(file.url, file.format) or str(error)
        return QuarantineEntry(source=file.source, stage="input", reason=reason)


def _problem(file: InputFile, mappings: Mappings, needs: Sequence[ColumnNeed], *, is_cut: bool) -> str | None:
    """Why a file without a footer cannot be used, from its first bytes."""
    if file.format not in SCHEMAS:
        return mappings.problem(file, is_cut=is_cut)
    schema = SCHEMAS[file.format](file.url)
    mappings.note(column_names(schema), source=file.source)
    return column_problem(schema, needs)


def _planned_whole(
    file: InputFile, config: InputSection, size: int, identity: str, pieces: Sequence[Piece]
) -> PlannedFile:
    """The plan of a file without a footer: one partition, or one for each piece."""
    name, rows = _partition_name(file.place), 1 if file.format == "text" else None
    num_partitions = len(pieces) or 1
    return PlannedFile(
        source=file.source,
        url=file.url,
        format=file.format,
        identity=identity,
        text=_text_name(config),
        max_document_bytes=config.max_document_bytes,
        source_name=config.name,
        names=[f"{name}-{piece.number:05d}" for piece in pieces] or [name],
        rows=[rows] * num_partitions,
        bytes=[piece.end - piece.begin for piece in pieces] or [size],
        row_groups=[None] * num_partitions,
        first_rows=[0] * num_partitions,
        pieces=pieces or [None],
    )


def _bytes_of(config: InputSection) -> int:
    assert config.partition_bytes != "auto"  # `plan_inputs` has chosen a size
    return config.partition_bytes


def _text_name(config: InputSection) -> str:
    return config.columns.get("text", "text")


def present_identity(partition: Partition) -> str:
    """`Partition.identity` as of now.

    Raises:
        OSError, pa.ArrowException: the file cannot be read.
    """
    if "://" in partition.url:
        filesystem, path = filesystem_of(partition.url)
        filesystem.invalidate_cache(path)  # of the listing from when the run was planned
    if partition.format == "parquet":
        return footer_of(partition.url).identity
    return size_and_identity(file_info(partition.url))[1]


def row_group_partition(partition: Partition, row_group: int) -> Partition:
    """The part of a Parquet file's partition that is one of its row groups.

    Raises:
        InputError: the footer cannot be read, or has no such row group.
    """
    first = range(*(partition.row_groups or ())).start
    with input_errors():
        metadata = footer_of(partition.url).metadata
        groups = [metadata.row_group(number) for number in range(first, row_group + 1)]
    rows = [group.num_rows for group in groups]
    return replace(
        partition,
        row_groups=(row_group, row_group + 1),
        first_row=partition.first_row + sum(rows[:-1]),
        rows=rows[-1],
        bytes=groups[-1].total_byte_size,
    )


def _plan_parquet(file: InputFile, mappings: Mappings, *, config: InputSection, schemas: FileSchemas) -> PlannedFile:
    _, of_file = file.listed or size_and_identity(file_info(file.url))
    footer = read_footer(file.url)
    columns = schemas.columns(footer)
    mappings.note(columns.names, source=file.source)
    if columns.problem:
        raise InputError(columns.problem)
    sizes, rows = _sizes_and_rows(footer)
    first_rows = list(accumulate(rows, initial=0))
    if first_rows[-1] != footer.num_rows:  # a footer has no checksum: a flipped bit would drop rows silently
        raise InputError(f"its row groups have {first_rows[-1]} rows, the footer lists {footer.num_rows}")
    if (fewest := min(rows, default=0)) < 0:
        raise InputError(f"its footer lists a row group of {fewest} rows")
    ranges = tuple(
        [
            (begin, end)
            for begin, end in _row_group_ranges(sizes, partition_bytes=_bytes_of(config))
            if first_rows[end] > first_rows[begin]
        ]
    )
    name = _partition_name(file.place)
    return PlannedFile(  # of tuples, which the garbage collector does not search again and again as it does lists
        source=file.source,
        url=file.url,
        format="parquet",
        identity=parquet_identity(of_file, footer),
        text=_text_name(config),
        max_document_bytes=config.max_document_bytes,
        source_name=config.name,
        names=tuple([f"{name}-{begin:05d}" for begin, _ in ranges]),
        rows=tuple([first_rows[end] - first_rows[begin] for begin, end in ranges]),
        bytes=tuple([sum(sizes[begin:end]) for begin, end in ranges]),
        row_groups=ranges,
        first_rows=tuple([first_rows[begin] for begin, _ in ranges]),
        pieces=(None,) * len(ranges),
    )


def _sizes_and_rows(footer: pq.FileMetaData) -> tuple[list[int], list[int]]:
    """The bytes and the rows of each row group. A list of their objects would be searched by the garbage collector."""
    sizes, rows = [], []
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        sizes.append(group.total_byte_size)
        rows.append(group.num_rows)
    return sizes, rows


def _row_group_ranges(sizes: Sequence[int], *, partition_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges of row groups of at most `partition_bytes`; a larger row group is a range of its own.

    Sizes [40, 40, 40, 90, 10] with partitions of 100 bytes give (0, 2), (2, 3), (3, 5).
    """
    begin, filled = 0, 0
    for i, size in enumerate(sizes):
        if filled and filled + size > partition_bytes:
            yield begin, i
            begin, filled = i, 0
        filled += size
    if begin < len(sizes):
        yield begin, len(sizes)


def _partition_name(place: str) -> str:
    """A file name for outputs: `/data/part 0.parquet` gives `part_0-<32 hex of the place>`, and `-00008` may follow.

    Two web addresses that differ in their query have different names, and neither name shows the query.
    """
    readable = _UNUSUAL.sub("_", stem_of(without_query(place).rsplit("/", 1)[-1]))[:48]
    return f"{readable}-{digest(os.fsencode(place))[:32]}"
