"""Files of lists: Parquet, JSON lines, or text with an entry a line; each perhaps compressed, or a folder of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.shards.common.errors import short_reason
from colophon.shards.common.paths import why_missing
from colophon.shards.common.text_encoding import NOT_UTF8, encoding_problem

_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
_TABLES = (".parquet", ".jsonl", ".ndjson", ".json")
_LINE_BYTES = 64 << 20
"""The longest line of JSON."""
_NO_BYTE_OF_A_LINE = "\x1f"


def files_of(path: str) -> list[Path]:
    """The file, or the files of a folder by name; those that begin with a dot or an underscore are none.

    Raises:
        AnnotatorError: it is missing, or the folder is empty.
    """
    place = Path(path)
    if place.is_dir():
        found = sorted(p for p in place.iterdir() if p.is_file() and not p.name.startswith((".", "_")))
        if not found:
            raise AnnotatorError(f"{path}: the folder has no file")
        return found
    if not place.is_file():
        raise AnnotatorError(f"{path}: {why_missing(path, otherwise='no such file or folder')}")
    return [place]


def digests(files: Sequence[Path]) -> list[str]:
    """sha256 of each file, see `remembered_sha256`."""
    return [remembered_sha256(file) for file in files]


def is_table(file: Path) -> bool:
    """Whether the file's suffix is that of Parquet or JSON lines."""
    return _suffix(file) in _TABLES


def table_batches(file: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The columns of a Parquet or JSON-lines file, as large_string.

    Raises:
        AnnotatorError: the file cannot be read, or lacks a column: of JSON lines, no line has a value and the first
            line not even the key.
    """
    schema = pa.schema([(name, pa.large_string()) for name in columns])
    try:
        if _suffix(file) == ".parquet":
            with pq.ParquetFile(file) as parquet:
                _check_columns(file, columns, parquet.schema_arrow.names)
                for batch in parquet.iter_batches(1024, columns=list(columns), use_threads=False):
                    yield batch.select(list(columns)).cast(schema)
            return
        _check_encoding(file)
        with_values: set[str] = set()
        with pa.input_stream(str(file), compression="detect") as stream:
            options = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
            size = pa.json.ReadOptions(block_size=_LINE_BYTES, use_threads=False)
            for batch in pa.json.open_json(stream, read_options=size, parse_options=options):
                with_values.update(name for name in columns if batch.column(name).null_count < batch.num_rows)
                yield batch
        if not with_values.issuperset(columns):
            _check_columns(file, [name for name in columns if name not in with_values], _first_keys(file))
    except (pa.ArrowException, OSError) as error:
        raise AnnotatorError(f"{file}: cannot be read: {short_reason(error)}") from None


def check_utf8(batch: pa.RecordBatch, file: Path) -> None:
    """Check that all texts of a batch of `table_batches` are UTF-8.

    Raises:
        AnnotatorError: one is not.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowException:
        raise AnnotatorError(f"{file}: {NOT_UTF8}") from None


def check_table(file: Path, columns: Sequence[str]) -> None:
    """Check that a Parquet file has the columns, from its end alone; of other files this shows when they are read.

    Raises:
        AnnotatorError: the file cannot be read, or lacks a column.
    """
    if _suffix(file) != ".parquet":
        return
    try:
        found = pq.read_schema(file).names
    except (pa.ArrowException, OSError) as error:
        raise AnnotatorError(f"{file}: cannot be read: {short_reason(error)}") from None
    _check_columns(file, columns, found)


def check_tables(files: Sequence[Path], columns: Sequence[str], *, key: str) -> None:
    """Check that each file is a table with these columns (see `check_table`), or a text if there are none.

    Raises:
        AnnotatorError: it is not so; `key` is the setting that has the columns.
    """
    for file in files:
        if is_table(file) != bool(columns):
            need = f"a text file has no `{key}`" if columns else f"a table needs the key `{key}`"
            raise AnnotatorError(f"{file}: {need}")
        check_table(file, columns)


def lines_of(file: Path) -> pa.Array:
    """large_string: the lines of a text file, without spaces around them, empty lines and those that begin with `#`.

    Raises:
        AnnotatorError: the file cannot be read, or is not UTF-8.
    """
    try:
        _check_encoding(file)
        with pa.input_stream(str(file), compression="detect") as stream:
            table = pa.csv.read_csv(
                stream,
                read_options=pa.csv.ReadOptions(column_names=["line"], block_size=_LINE_BYTES, use_threads=False),
                parse_options=pa.csv.ParseOptions(delimiter=_NO_BYTE_OF_A_LINE, quote_char=False),
                convert_options=pa.csv.ConvertOptions(column_types={"line": pa.large_string()}, null_values=[]),
            )
    except (pa.ArrowException, OSError) as error:
        if "Empty CSV file" in str(error):
            return pa.array([], pa.large_string())
        if "invalid UTF8" in str(error):
            raise AnnotatorError(f"{file}: {NOT_UTF8}") from None
        raise AnnotatorError(f"{file}: cannot be read: {short_reason(error)}") from None
    lines = pc.utf8_trim_whitespace(table.column("line").combine_chunks())
    is_entry = pc.and_(pc.not_equal(lines, ""), pc.invert(pc.starts_with(lines, "#")))
    return lines.filter(is_entry)


def entries_of(file: Path, column: str | None) -> pa.Array:
    """large_string, without nulls: the entries of a list: a column of Parquet or JSON lines, or the lines of a text.

    Raises:
        AnnotatorError: see `table_batches` and `lines_of`; a table needs a column, a text has none.
    """
    check_tables([file], [] if column is None else [column], key="column")
    if column is None:
        return lines_of(file)
    parts = []
    for batch in table_batches(file, [column]):
        check_utf8(batch, file)
        parts.append(batch.column(0))
    return pa.concat_arrays([pa.array([], pa.large_string()), *parts]).drop_null()


def _check_encoding(file: Path) -> None:
    """Check the first bytes of a text.

    Raises:
        AnnotatorError: it is UTF-16 or UTF-32.
    """
    with pa.input_stream(str(file), compression="detect") as stream:
        if problem := encoding_problem(stream.read(16)):
            raise AnnotatorError(f"{file}: {problem}")


def _suffix(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in _COMPRESSED:
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


def _first_keys(file: Path) -> list[str]:
    """The keys of the first line of JSON lines."""
    with pa.input_stream(str(file), compression="detect") as stream:
        for line in io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace"):
            if line.strip():
                return list(json.loads(line))
    return []


def _check_columns(file: Path, columns: Sequence[str], found: Sequence[str]) -> None:
    missing = [name for name in columns if name not in found]
    if missing:
        raise AnnotatorError(f"{file}: no column {missing[0]!r}; columns: {', '.join(found)}")
