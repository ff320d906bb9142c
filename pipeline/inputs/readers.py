"""Reading a partition as batches of columns under their FineWeb names, whatever the file calls them.

Rows keep their order and number: a null text stays a row. A broken JSON line, which cannot be a row, is reported. A
file that cannot be read raises InputError.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from colophon.pipeline.errors import InputError, one_line
from colophon.pipeline.inputs.arrow_reader import arrow_rows
from colophon.pipeline.inputs.columns import BATCH_BYTES, FINEWEB_TYPES, ColumnNeed, batches_of_rows, plain_strings
from colophon.pipeline.inputs.compression import register_zstd
from colophon.pipeline.inputs.content import ColumnContent
from colophon.pipeline.inputs.datatrove_reader import datatrove_rows
from colophon.pipeline.inputs.jsonl_reader import jsonl_rows
from colophon.pipeline.inputs.parquet_reader import parquet_batches
from colophon.pipeline.inputs.partitions import Partition, present_identity
from colophon.pipeline.retry import is_transient
from colophon.shards.manifest import QuarantineEntry

register_zstd()


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
    problems: list[QuarantineEntry] = field(default_factory=list)
    """Lines of the file that are not documents."""
    _content: dict[str, ColumnContent] = field(default_factory=lambda: defaultdict(ColumnContent), repr=False)

    @property
    def content(self) -> Mapping[str, str]:
        """sha256 of each column's values so far, see `inputs.content`; of ids as they are in the input."""
        return {need.name: self._content[need.name].hexdigest() for need in self.needs}

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        num_rows = 0
        try:
            for large in self._batches():
                for batch in _slices(large):
                    yield self._canonical(batch, first_row=self.partition.first_row + num_rows)
                    num_rows += batch.num_rows
            is_unchanged = present_identity(self.partition) == self.partition.identity
        except (pa.ArrowException, OSError, EOFError, ValueError, zlib.error) as error:
            if is_transient(error):
                raise
            raise InputError(one_line(error)) from error
        expected = self.partition.rows
        if expected is not None and num_rows != expected:
            raise InputError(f"{num_rows} rows read, the footer lists {expected}")
        if not is_unchanged:
            raise InputError("the file was changed during the run; run again to read it as it is now")

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """The partition's batches under the file's column names, by format."""
        if self.partition.format == "parquet":
            return parquet_batches(self.partition, self.needs)
        if self.partition.format == "jsonl":
            return batches_of_rows(jsonl_rows(self.partition, report=self._report), self.needs)
        rows = arrow_rows if self.partition.format == "arrow" else datatrove_rows
        return batches_of_rows(self._with_needed_columns(rows(self.partition)), self.needs)

    def _report(self, line: int, reason: str) -> None:
        entry = QuarantineEntry(
            source=self.partition.source,
            partition=self.partition.name,
            stage=self.stage,
            line=line,
            reason=reason,
            rows=1,
        )
        self.problems.append(entry)

    def _with_needed_columns(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(rows):
            missing = [need.in_input for need in self.needs if need.required and need.in_input not in row]
            if missing and not number:
                raise InputError(f"no column {missing[0]!r}; columns: {', '.join(map(str, row))}")
            yield row

    def _canonical(self, batch: pa.RecordBatch, *, first_row: int) -> pa.RecordBatch:
        arrays = {need.name: self._column(batch, need, first_row=first_row) for need in self.needs}
        if "text" in arrays:
            self.text_bytes += pc.sum(pc.binary_length(arrays["text"])).as_py() or 0
            self.texts_null += arrays["text"].null_count
        return pa.RecordBatch.from_pydict(arrays)

    def _column(self, batch: pa.RecordBatch, need: ColumnNeed, *, first_row: int) -> pa.Array:
        array = None
        if need.in_input in batch.schema.names:
            array, num_repaired = plain_strings(batch.column(need.in_input))
            self.texts_repaired += num_repaired if need.name == "text" else 0
        if need.name == "id":
            return self._ids(array, num_rows=batch.num_rows, first_row=first_row)
        if array is None:
            array = pa.nulls(batch.num_rows, FINEWEB_TYPES.get(need.name, pa.string()))
        self._content[need.name].update(array)
        return array

    def _ids(self, array: pa.Array | None, *, num_rows: int, first_row: int) -> pa.Array:
        """Document ids as strings; a row without one is named by its file and row, as datatrove does."""
        ids = pa.nulls(num_rows, pa.string()) if array is None else array.cast(pa.string())
        self._content["id"].update(ids)
        if not ids.null_count:
            return ids
        row_names = pa.array([f"{self.partition.source}/{first_row + i}" for i in range(num_rows)])
        return pc.coalesce(ids, row_names)


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Halve a batch, without copies, until each slice has at most `BATCH_BYTES` or one row."""
    if batch.num_rows < 2 or batch.nbytes <= BATCH_BYTES:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _slices(batch.slice(0, half))
    yield from _slices(batch.slice(half))
