"""Planning and reading one file as a run does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partition_table import Partitions
from colophon.pipeline.inputs.partitions import Inputs, plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.schema import InputSection

NEEDS = (ColumnNeed("text", "text"), ColumnNeed("id", "id", required=False), ColumnNeed("url", "url", required=False))


def planned(*paths: str, needs: Sequence[ColumnNeed] = NEEDS) -> Inputs:
    """The plan of these files, beside one that can be read: a plan in which no file can be read is an error."""
    good = {need.in_input: [[]] if pa.types.is_list(need.read_as or pa.null()) else ["good"] for need in needs}
    pq.write_table(pa.table(good), "good.parquet")
    inputs = plan_inputs(InputSection(paths=["good.parquet", *paths]), needs=needs)
    return Inputs(Partitions.of(inputs.partitions[1:]), inputs.quarantine)


def refusal(path: str, *, needs: Sequence[ColumnNeed] = NEEDS) -> str:
    """The reason for which the file is quarantined when the run is planned."""
    inputs = planned(path, needs=needs)
    assert inputs.partitions == ()
    (entry,) = inputs.quarantine
    assert (entry.source, entry.stage, entry.rows, entry.line) == (path, "input", None, None)
    return entry.reason


def read(path: str, *, needs: Sequence[ColumnNeed] = NEEDS) -> list[dict[str, Any]]:
    """The rows of a file.

    Raises:
        InputError: it is quarantined, when the run is planned or when it is read.
    """
    inputs = planned(path, needs=needs)
    for entry in inputs.quarantine:
        raise InputError(entry.reason)
    batches = [batch for part in inputs.partitions for batch in PartitionReader(part, needs, stage="test")]
    return [row for batch in batches for row in batch.to_pylist()]


def write(table: pa.Table, path: str | Path) -> str:
    """Write a table as Parquet, as an Arrow file or, by the name `stream.arrow`, as a stream."""
    if str(path).endswith(".parquet"):
        pq.write_table(table, path)
        return str(path)
    new = pa.ipc.new_stream if str(path).endswith("stream.arrow") else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table)
    return str(path)


FORMATS = ("a.parquet", "a.arrow", "stream.arrow")
"""Names for `write`, one for each format with types."""
