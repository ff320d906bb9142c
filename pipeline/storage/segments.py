"""Segments: Parquet files with the commit records of some thousand partitions each, `records/segment-<n>-<sha256>`.

A segment is written whole, under the run's lock, and never changed. Rows of a later one override those of an earlier
one. A row without a path withdraws the older records of its output and partition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.pipeline.concurrency import in_threads
from colophon.pipeline.storage.pass_record import RECORDS, PassRecord
from colophon.pipeline.storage.run_files import RunFiles
from colophon.shards.common.state_tables import parse_table, table_bytes
from colophon.shards.record_table import RECORDS as COLUMNS
from colophon.shards.record_table import filtered, row_of

SEGMENT_SCHEMA = pa.schema([pa.field("output", pa.string()), *COLUMNS])
"""A row for each output and partition, in the order in which they were committed."""
_SEGMENT = re.compile(r"segment-([0-9]{6,})-([0-9a-f]{32})\.parquet")
_REMEDY = "Delete it; `colophon run` writes the files again whose records it held"


def segment_names(names: Iterable[str]) -> list[str]:
    """The segments among the names in `records/`, the oldest first."""
    found = (match for match in map(_SEGMENT.fullmatch, names) if match is not None)
    return [match[0] for match in sorted(found, key=lambda match: (int(match[1]), match[2]))]


def read_segments(files: RunFiles, names: Sequence[str]) -> list[pa.Table] | None:
    """The tables of some segments; None if one has disappeared, as a run merges segments. Cost: one read each.

    Raises:
        DamagedFileError: one is damaged.
    """
    tables = in_threads(lambda name: _read_segment(files, name), names)
    found = [table for table in tables if table is not None]
    return found if len(found) == len(tables) else None


def _read_segment(files: RunFiles, name: str) -> pa.Table | None:
    match = _SEGMENT.fullmatch(name)
    assert match is not None
    path = f"{RECORDS}/{name}"
    content = files.read_bytes(path)
    if content is None:
        return None
    return parse_table(content, schema=SEGMENT_SCHEMA, digest=match[2], where=f"{files.root}/{path}", remedy=_REMEDY)


def write_segment(files: RunFiles, table: pa.Table, *, after: Sequence[str]) -> str:
    """Write a segment whose rows override those of the segments in `after`; returns its name."""
    last = _SEGMENT.fullmatch(after[-1]) if after else None
    number = 1 if last is None else int(last[1]) + 1
    content = table_bytes(table)
    name = f"segment-{number:06}-{sha256(content).hexdigest()[:32]}.parquet"
    files.replace_bytes(f"{RECORDS}/{name}", content)
    return name


def segment_table(records: Iterable[PassRecord]) -> pa.Table:
    """The rows of some commit records."""
    rows = []
    for record in records:
        rows += [{"output": output, "partition": record.partition} for output in record.withdrawn]
        rows += [{"output": each.output, **row_of(each)} for each in record.records]
    return pa.Table.from_pylist(rows, SEGMENT_SCHEMA)


def by_output(table: pa.Table) -> dict[str, pa.Table]:
    """The rows of a segment by their output, with the columns of `RECORDS`."""
    outputs, rows = table.column("output"), table.select(COLUMNS.names)
    return {output: filtered(rows, pc.equal(outputs, output)) for output in pc.unique(outputs).to_pylist()}


def of_output(rows: pa.Table, output: str) -> pa.Table:
    """The rows of a segment that `by_output` gave for an output."""
    return rows.add_column(0, SEGMENT_SCHEMA.field(0), pa.repeat(pa.scalar(output, pa.string()), rows.num_rows))


def latest(rows: pa.Table) -> pa.Table:
    """The last row of each partition of an output, in the order of the rows."""
    numbered = rows.select(["partition"]).append_column("row", pa.array(np.arange(rows.num_rows)))
    last = numbered.group_by("partition", use_threads=False).aggregate([("row", "max")]).column("row_max").to_numpy()
    return rows if len(last) == rows.num_rows else rows.take(pa.array(np.sort(last)))
