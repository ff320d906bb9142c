"""Arrow IPC files: written whole or by record batches, read memory-mapped, and their list columns as numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from colophon.shards.arrow_bounds import check_bounds
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import ShardError, one_line
from colophon.shards.schema import PackedInfo, packed_schema, tokens_schema


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table to an uncompressed Arrow IPC file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


@contextmanager
def growing_table(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that appends tables with `schema` to an uncompressed Arrow IPC file, a record batch for each chunk.

    The file is complete when the context ends.
    """
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        yield writer.write_table


def read_table(path: Path) -> pa.Table:
    """Memory-map an Arrow IPC file and check it; the offsets of lists and strings are read, ids are not.

    The check refuses a file whose offsets or sizes would make Arrow read outside the file or allocate memory for them.

    Raises:
        ShardError: the file is missing, truncated, damaged, compressed or not an Arrow file.
    """
    if path.exists() and not path.is_file():
        raise ShardError(f"{path}: not a regular file")  # a pipe would wait for a writer
    try:
        with pa.memory_map(str(path)) as source:
            with memoryview(source.read_buffer()) as data:
                check_bounds(data)
            source.seek(0)
            table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardError(f"{path}: not a readable Arrow file: {one_line(error)}") from None
    return table


def tokens_table(ids: pa.Array, input_ids: pa.Array, *, dtype: np.dtype[Any]) -> pa.Table:
    """The table of a token file: `ids` string [n], `input_ids` list<dtype> [n] without special tokens."""
    return pa.Table.from_arrays([ids, input_ids], schema=tokens_schema(dtype))


def packed_table(
    input_ids: NumPyArray,
    *,
    run_lengths: NumPyArray,
    run_roles: NumPyArray,
    run_documents: NumPyArray,
    runs_per_row: NumPyArray,
    info: PackedInfo,
) -> pa.Table:
    """The table of a packed file.

    Args:
        input_ids: uint16 or uint32 [num_rows, sequence_length + 1].
        run_lengths: [num_runs] tokens of each run, rows one after the other.
        run_roles: [num_runs] role of each run.
        run_documents: [num_runs] row of the run's document in the partition.
        runs_per_row: [num_rows], summing to num_runs.
        info: the schema metadata.
    """
    schema = packed_schema(info, input_ids.dtype)
    offsets = pa.array(np.concatenate([[0], np.cumsum(runs_per_row)]).astype(np.int32))
    ids = pa.FixedSizeListArray.from_arrays(pa.array(input_ids.reshape(-1)), info.sequence_length + 1)

    def lists(values: NumPyArray, dtype: type[np.generic]) -> pa.ListArray:
        return pa.ListArray.from_arrays(offsets, pa.array(values.astype(dtype, copy=False)))

    columns = [ids, lists(run_lengths, np.uint32), lists(run_roles, np.uint8), lists(run_documents, np.uint32)]
    return pa.Table.from_arrays(columns, schema=schema)


def list_chunks(column: pa.ChunkedArray) -> tuple[NumPyArray, list[NumPyArray]]:
    """A list column as numpy without a copy: offsets int64 [n + 1] into all values, and each chunk's values."""
    parts = [list_values(chunk) for chunk in column.chunks]
    lengths = [np.zeros(0, np.int64), *(np.diff(offsets) for offsets, _ in parts)]
    values = [values for _, values in parts] or [np.zeros(0, column.type.value_type.to_pandas_dtype())]
    return np.concatenate([[0], np.cumsum(np.concatenate(lengths))]), values


def list_values(column: pa.ChunkedArray | pa.Array) -> tuple[NumPyArray, NumPyArray]:
    """A list column as numpy: offsets int64 [n + 1] and the values; chunks are joined."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # a column without rows has no chunk to combine
        array = pa.array([], column.type)
    offsets = array.offsets.to_numpy().astype(np.int64)
    if len(offsets) == 0:
        return np.zeros(1, np.int64), array.values.to_numpy()
    return offsets - offsets[0], array.values.to_numpy()[offsets[0] : offsets[-1]]
