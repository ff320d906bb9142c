"""Annotations of documents as values of packed rows: the weights and scores by which rows are drawn and ordered.

A row's value is the mean of its documents' values over its text tokens. Which documents a row has is told by its runs,
whose documents are rows of the partition's annotation file.

Cost: one column of the annotations is read, and the runs of the layout.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.shards.annotations import find_column
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.reader import PackedFile
from colophon.shards.schema import Role
from colophon.trainer.config import RowWeightsConfig
from colophon.trainer.data.packed_layout import PackedLayout
from colophon.trainer.errors import TrainerError

_NAMED = 20  # labels that an error lists


def row_weights(packed: PackedLayout, config: RowWeightsConfig) -> NumPyArray:
    """float64 [num_rows]: the weights of all rows of a layout; one without text has the default.

    Raises:
        ShardError: no annotator has the column (the choices are listed), or a file is not as its record says.
        TrainerError: the column does not fit the table, or a weight is negative or infinite.
    """
    columns = _read_column(packed, config.column)
    values = _numbers(columns, config.column) if config.table is None else _looked_up(columns, config)
    filled = [np.where(np.isnan(value), config.default, value) for value in values]
    if any((value < 0).any() for value in filled):
        raise TrainerError(f"row_weights.column {config.column!r} of {packed.output} has negative numbers")
    weights = _row_means(packed, filled)
    return np.where(np.isnan(weights), config.default, weights)


def row_scores(packed: PackedLayout, column: str) -> NumPyArray:
    """float64 [num_rows]: the scores of all rows of a layout, NaN where none of a row's documents has a number.

    Raises:
        ShardError: no annotator has the column (the choices are listed), or a file is not as its record says.
        TrainerError: the column is not one of finite numbers.
    """
    return _row_means(packed, _numbers(_read_column(packed, column), column))


def _read_column(packed: PackedLayout, column: str) -> list[pa.Array]:
    """The column's values in each of the layout's partitions."""
    found = find_column(packed.output, packed.manifest, column)
    return [_joined(found.read(partition)) for partition in packed.partitions]


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _numbers(columns: list[pa.Array], name: str) -> list[NumPyArray]:
    """float64 of each partition, NaN for null."""
    numbers = []
    for column in columns:
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise TrainerError(f"column {name!r} holds {kind}, not numbers (row_weights by label want a table)")
        values: NumPyArray = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
        if np.isinf(values).any():
            raise TrainerError(f"column {name!r} has infinite numbers")
        numbers.append(values)
    return numbers


def _looked_up(columns: list[pa.Array], config: RowWeightsConfig) -> list[NumPyArray]:
    """The table's weight of each label, NaN for one that it does not have."""
    table = config.table or {}
    weights = np.array([*table.values(), np.nan])
    seen: dict[str, None] = {}
    found = []
    for column in columns:
        if not _are_labels(column.type):
            raise TrainerError(f"row_weights.column {config.column!r} holds {column.type}, not labels for a table")
        labels = pc.cast(column, pa.string())
        seen |= dict.fromkeys(labels.unique().drop_null().to_pylist())
        places = pc.index_in(labels, value_set=pa.array(list(table), pa.string()))
        found.append(weights[pc.fill_null(places, len(table)).to_numpy()])
    unknown = [label for label in table if label not in seen]
    if unknown:
        listed = ", ".join(sorted(seen)[:_NAMED]) + (f" and {len(seen) - _NAMED} more" if len(seen) > _NAMED else "")
        raise TrainerError(
            f"row_weights.table: column {config.column!r} has no label {unknown[0]!r}; available: {listed or 'none'}"
        )
    return found


def _are_labels(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean)
    return any(check(kind) for check in checks)


def _row_means(packed: PackedLayout, values: list[NumPyArray]) -> NumPyArray:
    files = zip(packed.dataset.files, values, strict=True)
    return np.concatenate([_file_means(file, documents) for file, documents in files])


def _file_means(file: PackedFile, values: NumPyArray) -> NumPyArray:
    """float64 [num_rows]: means over text tokens of documents' values float64, leaving NaN out; NaN where none is."""
    offsets, lengths, roles, documents = file.all_runs()
    is_text = roles == Role.TEXT
    rows = np.repeat(np.arange(len(file)), np.diff(offsets))[is_text]
    tokens, documents = lengths[is_text].astype(np.float64), documents[is_text]
    if len(documents) and documents.max() >= len(values):
        raise TrainerError(f"{file.path} has a document {documents.max()}, of {len(values)} annotated ones")
    of_runs = values[documents]
    counts = ~np.isnan(of_runs)
    sums = np.bincount(rows[counts], of_runs[counts] * tokens[counts], minlength=len(file))
    weights = np.bincount(rows[counts], tokens[counts], minlength=len(file))
    means: NumPyArray = np.divide(sums, weights, out=np.full(len(file), np.nan), where=weights > 0)
    return means
