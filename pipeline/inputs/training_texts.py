"""Texts for training: labelled texts for classifiers (a text and a label column), plain texts for tokenizers."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.embedding.vector_column import VECTOR
from colophon.pipeline.errors import InputError, UsageError, one_line
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.error_messages import validated
from colophon.pipeline.recipe.schema import InputSection

VECTOR_COLUMN = "vector"
"""The name of a column of vectors here, whatever the files name it; it is read as `VECTOR`."""
_LABEL = "label"
"""How the names of label columns begin here, whatever the files name them; they are read as text."""


def read_labelled(paths: Sequence[str], *, text: str, label: str) -> tuple[pa.Array, pa.Array]:
    """Texts and labels, both string [num_rows]; rows without a text or a label are dropped.

    Raises:
        UsageError: a file that cannot be read or lacks a column, or no row at all.
    """
    table = read_labels(paths, text=text, labels=[label])
    texts, labels = (table.column(place).combine_chunks() for place in (0, 1))
    return texts, labels


def read_labels(paths: Sequence[str], *, text: str, labels: Sequence[str], has_vectors: bool = False) -> pa.Table:
    """The column `text` and a column for each of `labels`, all string; rows without a text or any label are dropped.

    With `has_vectors`, `text` is a column of vectors, read as `VECTOR`.

    Raises:
        UsageError: a file that cannot be read or lacks a column, or no row at all.
    """
    first, kind = (VECTOR_COLUMN, VECTOR) if has_vectors else ("text", pa.string())
    names = {first: text, **{f"{_LABEL}{number}": label for number, label in enumerate(labels)}}
    batches = [batch.select(list(names)) for batch in _read(paths, names)]
    types = {name: kind if name == first else pa.string() for name in names}
    columns = [pa.chunked_array([batch.column(name).cast(types[name]) for batch in batches]) for name in names]
    table = pa.table(columns, names=["text", *labels])
    has_label = reduce(pc.or_, (pc.is_valid(table[label]) for label in labels))
    table = table.filter(pc.and_(pc.is_valid(table["text"]), has_label)).combine_chunks()
    if not table.num_rows:
        raise UsageError(f"{', '.join(paths)}: no row has both {text!r} and {', '.join(map(repr, labels))}")
    return table


def read_columns(paths: Sequence[str], names: Mapping[str, str], *, optional: Collection[str] = ()) -> pa.Table:
    """Columns by our names for them, in the types that they have in the files, or FineWeb's.

    Args:
        paths: the files.
        names: the files' name of each column.
        optional: those that are null where no file has them.

    Raises:
        UsageError: a file that cannot be read or lacks another column, or columns whose types differ between files.
    """
    batches = [batch.select(list(names)) for batch in _read(paths, dict(names), optional=optional)]
    if not batches:
        raise UsageError(f"{', '.join(paths)}: no row")
    try:
        return pa.concat_tables([pa.Table.from_batches([batch]) for batch in batches], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UsageError(f"{', '.join(paths)}: the files' types of a column differ: {one_line(error)}") from None


def read_texts(paths: Sequence[str], *, text: str, max_bytes: int) -> Iterator[pa.Array]:
    """Texts, string arrays in the input's order, until `max_bytes` of them have been read.

    Raises:
        UsageError: a file that cannot be read or lacks the column.
    """
    left = max_bytes
    for batch in _read(paths, {"text": text}):
        texts = batch.column("text")
        yield texts
        left -= pc.sum(pc.binary_length(texts)).as_py() or 0
        if left <= 0:
            return


def _read(paths: Sequence[str], columns: dict[str, str], *, optional: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
    """All rows of the files. Training quarantines nothing: a row that cannot be read is an error."""
    needs = [
        ColumnNeed(name, in_input, name not in optional, read_as=_read_as(name)) for name, in_input in columns.items()
    ]
    # A column that is named must exist; an optional one under its own name need not.
    named = {name: in_input for name, in_input in columns.items() if name not in optional or name != in_input}
    config = validated(
        InputSection, {"paths": list(paths), "columns": named, "partition_bytes": sys.maxsize}, where="training files"
    )
    inputs = plan_inputs(config, needs=needs)
    for entry in inputs.quarantine:
        raise UsageError(f"{entry.source}: {entry.reason}")
    for partition in inputs.partitions:
        reader = PartitionReader(partition, needs, stage="training")
        try:
            yield from reader
        except InputError as error:
            raise UsageError(f"{partition.source}: {error}") from error
        for problem in reader.problems:
            raise UsageError(f"{problem.source}:{problem.line}: {problem.reason}")


def _read_as(name: str) -> pa.DataType | None:
    return VECTOR if name == VECTOR_COLUMN else pa.string() if name.startswith(_LABEL) else None
