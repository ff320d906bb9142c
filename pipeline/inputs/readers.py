"""Reading a partition as batches of columns under their FineWeb names, whatever the file calls them.

Rows keep their order and number: a null text stays a row. A broken JSON line, which cannot be a row, is reported. A
file that cannot be read raises InputError.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import DOCUMENT_FILE, DOCUMENT_PLACE
from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columnar.arrow_reader import arrow_batches
from colophon.pipeline.inputs.columnar.conversion import converted, decoded_bytes
from colophon.pipeline.inputs.columnar.csv_reader import csv_batches
from colophon.pipeline.inputs.columnar.parquet_reader import parquet_batches, parquet_schema
from colophon.pipeline.inputs.columnar.text_reader import text_batches
from colophon.pipeline.inputs.columns import BATCH_BYTES, BATCH_ROWS, FINEWEB_TYPES, PLACE, ColumnNeed
from colophon.pipeline.inputs.content import ColumnContent
from colophon.pipeline.inputs.disguises import disguise_of
from colophon.pipeline.inputs.failures import input_errors
from colophon.pipeline.inputs.jsonl.reader import jsonl_batches
from colophon.pipeline.inputs.limits import MAX_VALUE_BYTES, TOO_LARGE, text_too_large
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.partitions import SCHEMAS, present_identity
from colophon.pipeline.inputs.problems import Problems
from colophon.pipeline.inputs.warc.reader import warc_batches
from colophon.shards.records import (
    LINES_OF_PIECE,
    OF_WRONG_TYPE,
    RECORDS_OF_KIND,
    TOO_LONG,
    QuarantineEntry,
    file_and_content,
)

_ANY_COLUMN = ColumnNeed("row", "id", required=False, occurrence=0)


@dataclass
class PartitionReader:
    """Iterates over record batches with the columns `needs`, in that order; the counters grow meanwhile.

    Raises:
        InputError: the file is damaged, changed, or lacks a column.
    """

    partition: Partition
    needs: Sequence[ColumnNeed]
    stage: str
    """The stage that reads, for `problems`."""
    text_bytes: int = 0
    texts_null: int = 0
    texts_repaired: int = 0
    """Texts with bytes that are not UTF-8; each such byte became U+FFFD."""
    has_content: bool = True
    """Whether `content` is computed, which costs a sha256 of all values."""
    excluded: Problems = field(init=False)
    """Lines and records of the file that are not documents."""
    wrong: Counter[str] = field(default_factory=Counter)
    """By column, the values that became null because the column cannot hold them, such as a list as a URL."""
    too_long: Counter[str] = field(default_factory=Counter)
    """By column, the strings that became null because they have more than `limits.MAX_VALUE_BYTES`."""
    other_records: Counter[str] = field(default_factory=Counter)
    """By kind, the records of a WARC file that are no documents, such as requests."""
    _in_file: Sequence[ColumnNeed] = field(init=False, repr=False)
    """Those of `needs` that the file has; one at least, so that rows are counted."""
    _content: dict[str, ColumnContent] = field(default_factory=lambda: defaultdict(ColumnContent), repr=False)

    def __post_init__(self) -> None:
        """Begin with nothing excluded."""
        self.excluded = Problems(self.partition, self.stage)
        self.needs = [need.in_source(self.partition.source_name) for need in self.needs]
        in_file = [need for need in self.needs if not (need.is_place or need.is_name_of(self.partition.source_name))]
        self._in_file = in_file or [_ANY_COLUMN]

    @property
    def problems(self) -> list[QuarantineEntry]:
        """The exclusions so far, one entry for each reason."""
        return self.excluded.entries

    def counts(self, columns: Iterable[str]) -> dict[str, int]:
        """Counts for the record of a file that is made from these columns: `url_of_wrong_type`, `records_request`."""
        columns = list(columns)
        lines = {} if self.partition.piece is None else {LINES_OF_PIECE: self.excluded.num_lines}
        wrong = {f"{name}{OF_WRONG_TYPE}": self.wrong[name] for name in columns if self.wrong[name]}
        long = {f"{name}{TOO_LONG}": self.too_long[name] for name in columns if self.too_long[name]}
        return {
            **lines,
            **wrong,
            **long,
            **{f"{RECORDS_OF_KIND}{kind}": n for kind, n in sorted(self.other_records.items())},
        }

    @property
    def content(self) -> Mapping[str, str]:
        """sha256 of each column's values so far, see `inputs.content`; of ids as they are in the input."""
        return {need.name: self._content[need.name].hexdigest() for need in self.needs}

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        num_rows = 0
        try:
            with input_errors():
                for large in self._batches():
                    for batch in _slices(large):
                        yield self._canonical(batch, first_row=self.partition.first_row + num_rows)
                        num_rows += batch.num_rows
                is_unchanged = present_identity(self.partition) == self.partition.identity
        except InputError as error:
            disguise = None if num_rows else disguise_of(self.partition.url, self.partition.format)
            if disguise is None:
                raise
            raise InputError(disguise) from error
        expected = self.partition.rows
        if expected is not None and num_rows != expected:
            raise InputError(f"{num_rows} rows read, the footer lists {expected}")
        if not is_unchanged:
            raise InputError("the file was changed during the run; run again to read it as it is now")

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """The partition's batches: the needed columns that it has, under FineWeb names, in any types."""
        partition, needs = self.partition, self._in_file
        if partition.format == "parquet":
            return parquet_batches(partition, needs)
        if partition.format == "arrow":
            return arrow_batches(partition.url, needs)
        if partition.format == "csv":
            return csv_batches(partition, needs, problems=self.excluded)
        if partition.format == "jsonl":
            return jsonl_batches(partition, needs, problems=self.excluded, wrong=self.wrong)
        if partition.format == "text":
            return text_batches(partition, needs)
        return warc_batches(partition, needs, problems=self.excluded, others=self.other_records)

    def _canonical(self, batch: pa.RecordBatch, *, first_row: int) -> pa.RecordBatch:
        arrays = {need.name: self._column(batch, need, first_row=first_row) for need in self.needs}
        if "text" in arrays:
            arrays["text"] = self._without_large_texts(arrays["text"], arrays.get("id"), first_row=first_row)
            self._hash("text", arrays["text"])
            self.text_bytes += pc.sum(pc.binary_length(arrays["text"])).as_py() or 0
            self.texts_null += arrays["text"].null_count
        return pa.RecordBatch.from_pydict(arrays)

    def _column(self, batch: pa.RecordBatch, need: ColumnNeed, *, first_row: int) -> pa.Array:
        if need.name == DOCUMENT_FILE:
            file = file_and_content(self.partition.name, self.partition.identity)
            return pa.array([file] * batch.num_rows, pa.string())
        if need.name == DOCUMENT_PLACE:
            return _places(batch, first_row=first_row)
        array = None
        if need.is_name_of(self.partition.source_name):
            array = pa.array([self.partition.source_name] * batch.num_rows, need.type or pa.string())
        elif need.name in batch.schema.names:
            array, num_repaired = converted(batch.column(need.name), need.type)
            self.texts_repaired += num_repaired if need.name == "text" else 0
        if need.name == "id":
            return self._ids(array, batch, first_row=first_row)
        if array is None:
            array = pa.nulls(batch.num_rows, need.type or pa.string())
        if need.name != "text":
            array = self._without_large_values(array, need.name)
            self._hash(need.name, array)
        return array

    def _without_large_texts(self, texts: pa.Array, ids: pa.Array | None, *, first_row: int) -> pa.Array:
        """The texts, null where one has more than `max_document_bytes`; such a row is reported and remains a row.

        Of formats in which a line or record is a document, it was excluded by its reader.
        """
        limit = self.partition.max_document_bytes
        rows, num_bytes = _above(texts, limit)
        for row, size in zip(rows, num_bytes, strict=True):
            document = None if ids is None else ids[row].as_py()
            reason = text_too_large(size, limit, document=document)
            self.excluded.add(first_row + row + 1, reason, kind=TOO_LARGE)
        return _with_nulls(texts, rows)

    def _without_large_values(self, array: pa.Array, name: str) -> pa.Array:
        """The values, null where a string has more than `MAX_VALUE_BYTES`, such as a URL of a megabyte; counted.

        An export reads columns under other names, and keeps them as they are.
        """
        rows, _ = _above(array, MAX_VALUE_BYTES) if name in FINEWEB_TYPES else ([], [])
        self.too_long[name] += len(rows)
        return _with_nulls(array, rows)

    def _hash(self, name: str, array: pa.Array) -> None:
        if self.has_content:
            self._content[name].update(array)

    def _ids(self, array: pa.Array | None, batch: pa.RecordBatch, *, first_row: int) -> pa.Array:
        """Document ids as strings; a row without one is named by its file and its place, `part-0-<32 hex>/7`.

        The place is the same however the file is cut: the row in the file, of JSON lines the byte.
        """
        ids = pa.nulls(batch.num_rows, pa.string())
        if array is not None:
            ids = self._without_large_values(array, "id").cast(pa.string())
        self._hash("id", ids)
        if not ids.null_count:
            return ids
        places = _places(batch, first_row=first_row).to_pylist()
        return pc.coalesce(ids, pa.array([f"{self.partition.file_name}/{place}" for place in places], pa.string()))


def schema_of(partition: Partition) -> pa.Schema | None:
    """The columns of the partition's file; None for formats in which each row has its own keys.

    Raises:
        InputError: the file cannot be read.
    """
    with input_errors():
        if partition.format == "parquet":
            return parquet_schema(partition.url)
        read = SCHEMAS.get(partition.format)
        return None if read is None else read(partition.url)


def _places(batch: pa.RecordBatch, *, first_row: int) -> pa.Array:
    """int64: the row of each document in its file, of JSON lines the byte; the batch begins at `first_row`."""
    if PLACE.name in batch.schema.names:
        return batch.column(PLACE.name)
    return pa.array(np.arange(first_row, first_row + batch.num_rows))


def _above(array: pa.Array, limit: int) -> tuple[list[int], list[int]]:
    """The rows whose strings have more than `limit` bytes, and the bytes of these."""
    kind = array.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or array.nbytes <= limit:
        return [], []
    lengths = pc.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(lengths > limit)
    return rows.tolist(), lengths[rows].tolist()


def _with_nulls(array: pa.Array, rows: Sequence[int]) -> pa.Array:
    """The array with nulls at these rows."""
    if not rows:
        return array
    is_kept = np.ones(len(array), bool)
    is_kept[rows] = False
    return pc.if_else(pa.array(is_kept), array, pa.scalar(None, array.type))


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch, without copies, into slices of at most `BATCH_ROWS` rows and of `BATCH_BYTES` or one row."""
    for first in range(0, batch.num_rows, BATCH_ROWS):
        yield from _halves(batch.slice(first, BATCH_ROWS))


def _halves(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.num_rows < 2 or sum(map(decoded_bytes, batch.columns)) <= BATCH_BYTES:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _halves(batch.slice(0, half))
    yield from _halves(batch.slice(half))
