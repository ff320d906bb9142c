"""Reading a partition as batches of columns under their FineWeb names, whatever the file calls them.

Rows keep their order and number: a null text stays a row. What cannot be a row (a broken JSON line) is reported, never
dropped in silence. What cannot be read at all raises InputError.
"""

from __future__ import annotations

import csv
import io
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import fsspec
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.partitions import FINEWEB_TYPES, ColumnNeed, Partition, missing_columns, present_identity
from colophon.pipeline.inputs.zstd_file import register
from colophon.pipeline.retry import is_transient
from colophon.shards.manifest import QuarantineEntry

BATCH_ROWS = 1024
_BATCH_BYTES = 4 << 20
_READ_BYTES = 2 << 20
_COLUMN_BUFFER_BYTES = 1 << 20
_REMOTE_BLOCK_BYTES = 4 << 20
_REMOTE_BLOCKS = 8
_ARROW_HEAD_BYTES = 8  # before what is written as to a stream

register()


@dataclass
class PartitionReader:
    """Iterating gives record batches with the columns `needs`, in their order; counts and problems fill meanwhile."""

    partition: Partition
    needs: Sequence[ColumnNeed]
    stage: str
    text_bytes: int = 0
    texts_null: int = 0
    texts_repaired: int = 0
    """Texts that held bytes which are not UTF-8; each such byte became U+FFFD."""
    problems: list[QuarantineEntry] = field(default_factory=list)
    """Rows of the file that could not be documents, named by line."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        row = self.partition.first_row
        try:
            for large in self._batches():
                for batch in _parts(large):
                    yield self._canonical(batch, first_row=row)
                    row += batch.num_rows
            is_the_same = present_identity(self.partition) == self.partition.identity
        except (pa.ArrowException, OSError, EOFError, ValueError, zlib.error) as error:
            if is_transient(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(reason) from error
        expected = self.partition.rows
        if expected is not None and row - self.partition.first_row != expected:
            raise InputError(f"{row - self.partition.first_row} rows read, the footer promises {expected}")
        if not is_the_same:
            raise InputError("the file was changed during the run; the next run takes it as it is then")

    def _batches(self) -> Iterator[pa.RecordBatch]:
        if self.partition.format == "parquet":
            return self._parquet()
        rows = self._json_lines() if self.partition.format == "jsonl" else self._rows_of_columns()
        return _columns(rows, self.needs)

    def _parquet(self) -> Iterator[pa.RecordBatch]:
        begin, end = self.partition.row_groups or (0, 0)
        with open_parquet(self.partition.url) as parquet:
            missing = missing_columns(parquet.schema_arrow, self.needs)
            if missing:
                raise InputError(missing)
            present = [need.in_input for need in self.needs if need.in_input in parquet.schema_arrow.names]
            rows = _rows_of_a_batch(parquet.metadata, range(begin, end))
            yield from parquet.iter_batches(rows, row_groups=range(begin, end), columns=present, use_threads=False)

    def _json_lines(self) -> Iterator[dict[str, Any]]:
        with (
            fsspec.open(self.partition.url, "rb", compression="infer") as handle,
            io.BufferedReader(handle) as lines,
        ):
            for number, line in enumerate(lines, start=1):
                try:
                    yield _json_row(line, self.partition.text)
                except ValueError as error:
                    entry = QuarantineEntry(
                        source=self.partition.source,
                        partition=self.partition.name,
                        stage=self.stage,
                        line=number,
                        reason=str(error),
                        rows=1,
                    )
                    self.problems.append(entry)

    def _rows_of_columns(self) -> Iterator[dict[str, Any]]:
        rows = _arrow_rows if self.partition.format == "arrow" else _datatrove_rows
        for number, row in enumerate(rows(self.partition)):
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
        found = batch.column(need.in_input) if need.in_input in batch.schema.names else None
        if found is not None and pa.types.is_dictionary(found.type):
            found = found.dictionary_decode()
        if found is not None and pa.types.is_string_view(found.type):
            found = found.cast(pa.large_string())
        if found is not None and (pa.types.is_string(found.type) or pa.types.is_large_string(found.type)):
            found, repaired = _valid_utf8(found)
            self.texts_repaired += repaired if need.name == "text" else 0
        if need.name == "id":
            return self._ids(found, num_rows=batch.num_rows, first_row=first_row)
        if found is None:
            return pa.nulls(batch.num_rows, FINEWEB_TYPES.get(need.name, pa.string()))
        return found

    def _ids(self, found: pa.Array | None, *, num_rows: int, first_row: int) -> pa.Array:
        """Document ids; a row without one is named by its file and row, as datatrove does."""
        known = None if found is None else found.cast(pa.string())
        if known is not None and not known.null_count:
            return known
        made = pa.array([f"{self.partition.source}/{first_row + i}" for i in range(num_rows)])
        return made if known is None else pc.coalesce(known, made)


@contextmanager
def open_parquet(url: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file to be read from front to back, at a memory that does not depend on the size of its row groups.

    pyarrow's `pre_buffer` would hold all columns of a partition, and without a buffer it holds whole column chunks:
    0.8 GB for a row group of 2 GB, and it took twice the time.
    """
    with ExitStack() as stack:
        source: Any = url
        if "://" in url:
            filesystem, path = fsspec.url_to_fs(url)
            # The columns of a row group are read in turn: a cache of one place would fetch everything many times.
            remote = not isinstance(filesystem, LocalFileSystem | MemoryFileSystem)
            caching = {"cache_type": "blockcache", "cache_options": {"maxblocks": _REMOTE_BLOCKS}} if remote else {}
            source = stack.enter_context(filesystem.open(path, "rb", block_size=_REMOTE_BLOCK_BYTES, **caching))
        # Without checksums pyarrow may hand over a damaged page as text.
        opened = pq.ParquetFile(
            source, page_checksum_verification=True, pre_buffer=False, buffer_size=_COLUMN_BUFFER_BYTES
        )
        yield stack.enter_context(opened)


def _rows_of_a_batch(footer: pq.FileMetaData, row_groups: range) -> int:
    """At most `BATCH_ROWS`, and fewer where a row has so many bytes that a batch would have more than 2 MB."""
    groups = [footer.row_group(i) for i in row_groups]
    row_bytes = max((g.total_byte_size / g.num_rows for g in groups if g.num_rows), default=0)
    return max(1, min(BATCH_ROWS, int(_READ_BYTES / max(row_bytes, 1))))


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in slices of at most about 4 MB, no copies; a single row may be larger."""
    if batch.num_rows < 2 or batch.nbytes <= _BATCH_BYTES:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _parts(batch.slice(0, half))
    yield from _parts(batch.slice(half))


def _valid_utf8(array: pa.Array) -> tuple[pa.Array, int]:
    """The array with every byte that is not UTF-8 as U+FFFD, and how many values had one."""
    try:
        array.validate(full=True)
        return array, 0
    except pa.ArrowInvalid:
        pass
    values = array.cast(pa.large_binary() if pa.types.is_large_string(array.type) else pa.binary()).to_pylist()
    repaired = [None if value is None else value.decode("utf-8", errors="replace") for value in values]
    bad = sum(text is not None and text.encode() != value for text, value in zip(repaired, values, strict=True))
    return pa.array(repaired, array.type), bad


def _json_row(line: bytes, text: str) -> dict[str, Any]:
    if not line.strip():
        raise ValueError("blank line")
    row = orjson.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"a JSON {type(row).__name__}, not an object")
    if text not in row:
        raise ValueError(f"no key {text!r}; keys: {', '.join(row)}")
    if not isinstance(row[text], str | None):
        raise ValueError(f"{text!r} is {type(row[text]).__name__}, not a string")
    return row


def _arrow_rows(partition: Partition) -> Iterator[dict[str, Any]]:
    """Rows of an Arrow IPC file. datatrove's reader trusts its offsets: one flipped bit ended the process.

    Batches are read as they stand, and counted: another such bit made the footer name none of them.
    """
    # A message may say that it has 2^60 bytes: Python would try to get that memory, pyarrow says that it cannot.
    with fsspec.open(partition.url, "rb") if "://" in partition.url else pa.OSFile(partition.url) as handle:
        promised = pa.ipc.open_file(handle).num_record_batches
        handle.seek(_ARROW_HEAD_BYTES)
        found = 0
        for found, batch in enumerate(pa.ipc.open_stream(handle), start=1):  # noqa: B007 (counted)
            batch.validate(full=True)
            yield from batch.to_pylist()
    if found != promised:
        raise InputError(f"{found} record batches read, the footer promises {promised}")


def _datatrove_rows(partition: Partition) -> Iterator[dict[str, Any]]:
    """Rows through datatrove's reader for the format. Its adapter would skip rows without text; ours hands them on."""
    from datatrove.pipeline.readers import CSVReader, WarcReader

    reader_class: Any = {"csv": CSVReader, "warc": WarcReader}[partition.format]
    csv.field_size_limit(sys.maxsize)  # or a text of more than 128 KiB would be an error

    def keep_all(_: Any, data: dict[str, Any], path: str, id_in_file: int | str) -> dict[str, Any]:
        return {"text": "kept", "id": str(id_in_file), "metadata": {"row": dict(data)}}

    folder, _, name = partition.url.rpartition("/")
    reader = reader_class(folder, glob_pattern=PurePosixPath(name).name, adapter=keep_all)
    documents = iter(reader.read_file(name))
    while True:
        try:
            document = next(documents, None)
        except Exception as error:
            # Each format's parser has errors of its own, all of them about the file.
            if is_transient(error):
                raise
            raise InputError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
        if document is None:
            return
        row = document.metadata["row"]
        # A damaged quote joins rows or cuts them.
        if partition.format == "csv" and (None in row or None in row.values()):
            raise InputError(f"row {document.id}: not as many fields as columns; columns: {_names(row)}")
        yield row


def _names(row: Mapping[Any, Any]) -> str:
    return ", ".join(str(name) for name in row if name is not None)


def _columns(rows: Iterable[Mapping[str, Any]], needs: Sequence[ColumnNeed]) -> Iterator[pa.RecordBatch]:
    """Rows as record batches of at most `BATCH_ROWS` rows or about 4 MB of text."""
    batch: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(batch) == BATCH_ROWS or size >= _BATCH_BYTES:
            yield _record_batch(batch, needs)
            batch, size = [], 0
    if batch:
        yield _record_batch(batch, needs)


def _record_batch(rows: Sequence[Mapping[str, Any]], needs: Sequence[ColumnNeed]) -> pa.RecordBatch:
    names = {need.in_input: FINEWEB_TYPES.get(need.name) for need in needs}
    return pa.RecordBatch.from_pydict({n: _typed([row.get(n) for row in rows], t) for n, t in names.items()})


def _typed(values: list[Any], wanted: pa.DataType | None) -> pa.Array:
    """An Arrow column of Python values; what does not fit the wanted type is null, except that ids become text."""
    if wanted is None:
        return pa.array(values)
    if pa.types.is_string(wanted):
        return pa.array([v if v is None or isinstance(v, str) else str(v) for v in values], wanted)
    convert = int if pa.types.is_integer(wanted) else float
    return pa.array([_number(v, convert) for v in values], wanted)


def _number(value: Any, convert: type[int] | type[float]) -> float | int | None:
    try:
        return None if value is None else convert(value)
    except (TypeError, ValueError, OverflowError):
        return None
