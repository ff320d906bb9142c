"""The columns of the first documents of a file, with their types and missing values, for a look before a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columnar.conversion import is_text
from colophon.pipeline.inputs.columns import BATCH_ROWS, ColumnNeed, column_names, paths_of
from colophon.pipeline.inputs.jsonl.sample import first_rows, members
from colophon.pipeline.inputs.mappings import WARC_COLUMNS
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.readers import PartitionReader, schema_of

_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "list", dict: "object"}


@dataclass(frozen=True)
class FoundColumn:
    """A column, or a field in a struct or JSON object, in the first documents of a file."""

    name: str
    """As a recipe names it: `meta.url`."""
    type: str
    """Arrow's type; of JSON `string`, `integer`, `number`, `boolean`, `list`, several if values differ; `cannot be
    read` if the column is damaged."""
    rows: int
    """Documents that were read."""
    missing: int
    """Those without the column, or with null or an empty string in it."""


def found_columns(partition: Partition) -> list[FoundColumn]:
    """The columns of up to 1,024 documents at the start of a partition. Reads about one batch.

    Raises:
        InputError: the file cannot be read.
    """
    if partition.format == "jsonl":
        return _of_json(partition)
    schema = schema_of(partition)
    if schema is None:
        schema = pa.schema([(name, pa.string()) for name in WARC_COLUMNS])
    names = [name for name in dict.fromkeys(column_names(schema)) if name]
    inner = {name.rpartition(".")[0] for name in names}
    fields = list(schema)
    single = [
        name for name in names if name not in inner and (name in schema.names or len(paths_of(fields, name)) == 1)
    ]
    needs = [ColumnNeed(f"column {name}", name, False, 0 if name in schema.names else None) for name in single]
    try:
        return _read(partition, needs)
    except InputError:  # of one column, which a run may not need
        return [column for need in needs for column in _alone(partition, need)]


def _read(partition: Partition, needs: Sequence[ColumnNeed]) -> list[FoundColumn]:
    batch = next(iter(PartitionReader(partition, needs, stage="input", has_content=False)), None)
    if batch is None:
        return []
    return [_of_array(need.in_input, array) for need, array in zip(needs, batch.columns, strict=True)]


def _alone(partition: Partition, need: ColumnNeed) -> list[FoundColumn]:
    try:
        return _read(partition, [need])
    except InputError:
        return [FoundColumn(need.in_input, "cannot be read", 0, 0)]


def _of_array(name: str, array: pa.Array) -> FoundColumn:
    missing = array.null_count
    if is_text(array.type):
        missing += pc.sum(pc.equal(pc.binary_length(array), 0)).as_py() or 0
    return FoundColumn(name, str(array.type), len(array), missing)


def _of_json(partition: Partition) -> list[FoundColumn]:
    types: dict[str, Counter[str]] = {}
    num_rows = 0
    for row in islice(first_rows(partition.url), BATCH_ROWS):
        num_rows += 1
        for name, value in members(row):
            counts = types.setdefault(name, Counter())
            if value is not None and value != "":
                counts[_JSON_TYPES[type(value)]] += 1
    return [
        FoundColumn(name, " or ".join(sorted(counts)) or "null", num_rows, num_rows - counts.total())
        for name, counts in types.items()
    ]
