"""WARC files as record batches. Records read = documents + records counted by kind + records reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.compression import open_to_the_damage
from colophon.pipeline.inputs.failures import input_errors
from colophon.pipeline.inputs.limits import TOO_LARGE, TooLargeError
from colophon.pipeline.inputs.mappings import WARC_COLUMNS
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.problems import Problems
from colophon.pipeline.inputs.row_batches import row_batches
from colophon.pipeline.inputs.search.formats import compression_of
from colophon.pipeline.inputs.warc.payloads import NoDocumentError, text_of
from colophon.pipeline.inputs.warc.records import CountingStream, DamagedError, Record, records


def warc_batches(
    partition: Partition, needs: Sequence[ColumnNeed], *, problems: Problems, others: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """The columns `text`, `id`, `url` and `date` of a file's documents, under FineWeb names.

    Args:
        partition: a whole file.
        needs: the columns; a record has no other than those four.
        problems: gets the records that cannot be read, and the place from which on a file is damaged.
        others: gets the number of records that are no documents, by kind.

    Raises:
        InputError: the first record is damaged, or a required column is none of the four.
    """
    for need in needs:
        if need.required and need.in_input not in WARC_COLUMNS:
            raise InputError(f"no column {need.in_input!r}; columns: {', '.join(WARC_COLUMNS)}")
    return row_batches(_rows(partition, needs, problems, others), needs, wrong=Counter())


def _rows(
    partition: Partition, needs: Sequence[ColumnNeed], problems: Problems, others: Counter[str]
) -> Iterator[tuple[Sequence[Any], int]]:
    names = [need.in_input for need in needs]
    waiting: _Outcome | None = None  # complete once the next record begins, or the file ends
    with open_to_the_damage(partition.url, compression_of(partition.url)) as file:
        found = records(CountingStream(file))
        try:
            for record in found:
                if waiting is not None:
                    yield from waiting.settled(names, problems, others)
                waiting = _Outcome(record, max_document_bytes=partition.max_document_bytes)
            if waiting is not None:
                yield from waiting.settled(names, problems, others)
        except DamagedError as error:
            if waiting is not None and waiting.number != error.number:
                yield from waiting.settled(names, problems, others)
            if error.number == 1:
                raise InputError(str(error)) from error
            problems.end(error.number, str(error))


class _Outcome:
    """A record that was read: a document, a kind to be counted, or a reason."""

    def __init__(self, record: Record, *, max_document_bytes: int) -> None:
        self.number = record.number
        self._limit = max_document_bytes
        self._text: str | None = None
        self._kind, self._reason, self._is_too_large = "", "", False
        try:
            with input_errors():
                self._read(record)
        except InputError as error:
            self._reason, self._is_too_large = str(error), isinstance(error, TooLargeError)

    def _read(self, record: Record) -> None:
        try:
            self._text = text_of(record, max_document_bytes=self._limit)
            self._values = _values(record, self._text)
        except NoDocumentError as error:
            self._kind = error.kind

    def settled(
        self, names: Sequence[str], problems: Problems, others: Counter[str]
    ) -> Iterator[tuple[Sequence[Any], int]]:
        """The row of a document; anything else is counted or reported."""
        if self._text is not None:
            yield [self._values.get(name) for name in names], len(self._text)
        elif self._reason:
            problems.add(
                self.number, self._reason, kind=TOO_LARGE if self._is_too_large else self._reason.partition(":")[0]
            )
        else:
            others[self._kind] += 1


def _values(record: Record, text: str) -> dict[str, str | None]:
    url = record.header("WARC-Target-URI")
    return {
        "text": text,
        "id": record.header("WARC-Record-ID"),
        "url": url[1:-1] if url and url.startswith("<") and url.endswith(">") else url,  # Wget 1.19
        "date": record.header("WARC-Date"),
    }
