"""Queries over the annotation files of a run, about a million documents at a time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from colophon.shards.annotations import scan_annotations
from colophon.shards.common.errors import ShardError, one_line
from colophon.shards.manifest import checked_path
from colophon.shards.records import Record
from colophon.shards.run_output import RunOutput

ROWS_PER_QUERY = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some partitions as one query."""

    partitions: list[tuple[str, int]]
    """Names and documents, in the order of the frame's rows."""
    frame: pl.LazyFrame
    """The documents with the columns of the annotators."""


def batches(run: RunOutput, annotators: Sequence[str]) -> Iterator[pl.LazyFrame]:
    """Yield the documents of all partitions that these annotators have in common, in frames with all their columns.

    Raises:
        ShardError: a file is missing, or is not as large as its record states.
    """
    for block in blocks(run, annotators, most_rows=ROWS_PER_QUERY):
        yield block.frame


def blocks(run: RunOutput, annotators: Sequence[str], *, most_rows: int) -> Iterator[Block]:
    """Yield the frames of `batches` with their partitions: at most `most_rows` documents or one partition a frame.

    Raises:
        ShardError: a file is missing, or is not as large as its record states.
    """
    found: list[list[Record]] = []
    for records in _common_records(run, annotators):
        if found and sum(first.rows for first, *_ in found) + records[0].rows > most_rows:
            yield _block(run, found)
            found = []
        found.append(records)
    if found:
        yield _block(run, found)


def partition_frame(run: RunOutput, record: Record) -> pl.LazyFrame:
    """The documents of one file of annotations.

    Raises:
        ShardError: it is missing, or is not as large as its record states.
    """
    return scan_annotations([checked_path(run.directory, record)])


def _common_records(run: RunOutput, annotators: Sequence[str]) -> Iterator[list[Record]]:
    """Yield the annotators' records of each partition that all have with the same documents."""
    by_partition = [{r.partition: r for r in run.manifest.annotators[name].records} for name in annotators]
    for partition, first in by_partition[0].items():
        records = [records[partition] for records in by_partition if partition in records]
        if len(records) == len(annotators) and first.rows and {record.rows for record in records} == {first.rows}:
            yield records


def _block(run: RunOutput, records: Sequence[Sequence[Record]]) -> Block:
    frames = [scan_annotations(_paths(run, of_annotator)) for of_annotator in zip(*records, strict=True)]
    return Block(
        partitions=[(first.partition, first.rows) for first, *_ in records],
        frame=frames[0] if len(frames) == 1 else pl.concat(frames, how="horizontal"),
    )


def _paths(run: RunOutput, records: Sequence[Record]) -> list[Path]:
    return [checked_path(run.directory, record) for record in records]


def collected(query: pl.LazyFrame, run: RunOutput) -> pl.DataFrame:
    """The result of a query, computed without loading its input whole.

    Raises:
        ShardError: a file cannot be read.
    """
    try:
        return query.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        message = f"{run.directory}/annotations: cannot be read: {one_line(error)}. `colophon verify` checks every file"
        raise ShardError(message) from None


def counted(batch: pl.LazyFrame, by: Sequence[pl.Expr], run: RunOutput) -> pl.DataFrame:
    """The documents of each combination of values without null, as a column `n` after those of `by`."""
    return collected(batch.select(by).drop_nulls().group_by(pl.all()).agg(pl.len().alias("n")), run)


def summed(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The sums of the column `n` by all other columns, the largest first; ties are ordered by the other columns."""
    by = [name for name in parts[0].columns if name != "n"]
    joined = pl.concat(parts, how="vertical_relaxed").group_by(by).agg(pl.col("n").sum())
    return joined.sort(["n", *by], descending=[True, *(False for _ in by)])
