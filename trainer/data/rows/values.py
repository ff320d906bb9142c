"""Annotations of documents as values of packed rows: the weights by which rows are drawn, the scores that order them.

A row's value is the mean of its documents' values over its text tokens. The row's runs give its documents, as rows of
the partition's annotation file. Cost: reading one annotation column and the runs of the layout.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.shards.annotations import find_column
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import listed
from colophon.shards.reader import PackedFile
from colophon.shards.schema import Role
from colophon.trainer.config import RowWeightsConfig
from colophon.trainer.data.packed_layout import PackedLayout
from colophon.trainer.errors import TrainerError

_MAX_LISTED_LABELS = 20  # in an error


def row_weights(packed: PackedLayout, config: RowWeightsConfig) -> NumPyArray:
    """float64 [num_rows]: the weights of all rows of a layout; a row without text has the default.

    Raises:
        ShardError: no annotator has the column (the choices are listed), or a file differs from its record.
        TrainerError: the column has no labels for the table, or a weight is negative or infinite.
    """
    columns = _read_column(packed, config.column)
    values = _numbers(columns, config.column) if config.table is None else _table_weights(columns, config)
    filled = [np.where(np.isnan(value), config.default, value) for value in values]
    if any((value < 0).any() for value in filled):
        raise TrainerError(f"row_weights.column {config.column!r} of {packed.output} has negative numbers")
    weights = _row_means(packed, filled)
    return np.where(np.isnan(weights), config.default, weights)


def row_scores(packed: PackedLayout, column: str) -> NumPyArray:
    """float64 [num_rows]: the scores of all rows of a layout, NaN where none of a row's documents has a number.

    Raises:
        ShardError: no annotator has the column (the choices are listed), or a file differs from its record.
        TrainerError: the column holds no numbers, or an infinite one.
    """
    return _row_means(packed, _numbers(_read_column(packed, column), column))


def _read_column(packed: PackedLayout, column: str) -> list[pa.Array]:
    """The column's values in each of the layout's partitions."""
    annotations = find_column(packed.output, packed.manifest, column)
    return [_one_array(annotations.read(partition)) for partition in packed.partitions]


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _numbers(columns: list[pa.Array], name: str) -> list[NumPyArray]:
    """float64 of each partition, NaN for null."""
    numbers = []
    for column in columns:
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise TrainerError(f"column {name!r} holds {kind}, not numbers (row_weights by label need a table)")
        values: NumPyArray = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
        if np.isinf(values).any():
            raise TrainerError(f"column {name!r} has infinite numbers")
        numbers.append(values)
    return numbers


def _table_weights(columns: list[pa.Array], config: RowWeightsConfig) -> list[NumPyArray]:
    """float64 of each partition: the table's weight of each label, NaN for a label that it does not have."""
    table = config.table or {}
    weights = np.array([*table.values(), np.nan])
    seen: dict[str, None] = {}
    found = []
    for column in columns:
        if not _is_label_type(column.type):
            raise TrainerError(f"row_weights.column {config.column!r} holds {column.type}, not labels for a table")
        labels = pc.cast(column, pa.string())
        seen |= dict.fromkeys(labels.unique().drop_null().to_pylist())
        places = pc.index_in(labels, value_set=pa.array(list(table), pa.string()))
        found.append(weights[pc.fill_null(places, len(table)).to_numpy()])
    unknown = [label for label in table if label not in seen]
    if unknown:
        labels = listed(sorted(seen), most=_MAX_LISTED_LABELS) or "none"
        raise TrainerError(
            f"row_weights.table: column {config.column!r} has no label {unknown[0]!r}; available: {labels}"
        )
    return found


def _is_label_type(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean)
    return any(check(kind) for check in checks)


def _row_means(packed: PackedLayout, values: list[NumPyArray]) -> NumPyArray:
    files = zip(packed.dataset.files, values, strict=True)
    return np.concatenate([_file_means(file, documents) for file, documents in files])


def _file_means(file: PackedFile, values: NumPyArray) -> NumPyArray:
    """float64 [num_rows]: means over text tokens of documents' values float64, without NaN; NaN where none is left.

    A row with 30 text tokens of a document of value 1.0, 10 of value 3.0 and 5 of NaN has (30 + 30) / 40 = 1.5.
    """
    offsets, lengths, roles, documents = file.all_runs()
    is_text = roles == Role.TEXT
    rows = np.repeat(np.arange(len(file)), np.diff(offsets))[is_text]
    tokens, documents = lengths[is_text].astype(np.float64), documents[is_text]
    if len(documents) and documents.max() >= len(values):
        raise TrainerError(f"{file.path} has document {documents.max()}, but only {len(values)} are annotated")
    run_values = values[documents]
    has_value = ~np.isnan(run_values)
    sums = np.bincount(rows[has_value], run_values[has_value] * tokens[has_value], minlength=len(file))
    counts = np.bincount(rows[has_value], tokens[has_value], minlength=len(file))
    means: NumPyArray = np.divide(sums, counts, out=np.full(len(file), np.nan), where=counts > 0)
    return means
