"""JSON lines as record batches; a line that is not a document is reported by its number, and the next line follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.jsonl.documents import NO_OBJECT, BadLineError, LineParser
from colophon.pipeline.inputs.jsonl.lines import Line, LongLine, line_blocks, lines_of, open_lines, other_format
from colophon.pipeline.inputs.limits import TOO_LARGE, line_limit, line_too_large
from colophon.pipeline.inputs.partitions import Partition
from colophon.pipeline.inputs.problems import Problems
from colophon.pipeline.inputs.row_batches import row_batches


def jsonl_batches(
    partition: Partition, needs: Sequence[ColumnNeed], *, problems: Problems, wrong: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """The needed columns of a file's documents, under FineWeb names. Blank lines are skipped.

    Args:
        partition: a whole file.
        needs: the columns.
        problems: gets the lines that are not documents.
        wrong: gets the values that became null because of their type, by FineWeb name.

    Raises:
        InputError: the file is not UTF-8, or is JSON over several lines.
    """
    return row_batches(_rows(partition, needs, problems), needs, wrong=wrong)


def _rows(partition: Partition, needs: Sequence[ColumnNeed], problems: Problems) -> Iterator[tuple[Sequence[Any], int]]:
    limit = partition.max_document_bytes
    parse = LineParser(partition.text, needs, max_document_bytes=limit)
    start = _Start()
    num_lines = 0
    with open_lines(partition.url) as file:
        for block in line_blocks(file, limit=line_limit(limit)):
            if isinstance(block, LongLine):
                num_lines += 1
                reason = line_too_large(f"a line of {block.num_bytes:,} bytes", limit)
                problems.add(num_lines, reason, kind=TOO_LARGE)
                continue
            lines = lines_of(block)
            documents, bad = _parsed(block, lines, parse)
            start.check(min(documents, default=None), [(place, lines[place], error) for place, error in bad])
            for place, error in bad:
                problems.add(num_lines + place + 1, str(error), kind=error.kind)
            sizes, num_lines = list(map(len, lines)), num_lines + len(lines)
            del block, lines  # a document may be large: its line, its values and its array do not all exist at once
            for place in list(documents):
                yield documents.pop(place), sizes[place]


def _parsed(
    block: Line, lines: Sequence[Line], parse: LineParser
) -> tuple[dict[int, Sequence[Any]], list[tuple[int, BadLineError]]]:
    """The values of the lines that are documents, and the errors of the others, by place; blank lines have neither."""
    documents: dict[int, Sequence[Any]] = {}
    expected: list[int] = []
    bad = []
    for place, line in enumerate(lines):
        try:
            parsed = parse(line)
        except BadLineError as error:
            bad.append((place, error))
            continue
        if parsed is not None:
            documents[place] = parsed[0]
            expected.append(parsed[1])
    places = list(documents)
    for place in parse.repeated(block, lines, dict(zip(places, expected, strict=True))):
        try:
            scanned = parse.scanned(lines[place])
            assert scanned is not None  # it was no blank line
            documents[place] = scanned[0]
        except BadLineError as error:
            del documents[place]
            bad.append((place, error))
    return documents, sorted(bad, key=lambda found: found[0])


class _Start:
    """Finds a file that is one JSON text over several lines: its first two lines are no documents and look like it."""

    def __init__(self) -> None:
        self._failed: list[str | None] = []
        self._is_open = True

    def check(self, first_document: int | None, bad: Sequence[tuple[int, Line, BadLineError]]) -> None:
        """Note a block of lines.

        Args:
            first_document: the place of the block's first document.
            bad: places, lines and errors of the lines that are no documents.

        Raises:
            InputError: the file's first two lines that are not blank are no documents, and the first of them begins an
                array or object that it does not end.
        """
        if not self._is_open:
            return
        before = bad if first_document is None else [found for found in bad if found[0] < first_document]
        self._failed += [None if error.kind == NO_OBJECT else other_format(line) for _, line, error in before[:2]]
        self._is_open = first_document is None and len(self._failed) < 2
        if len(self._failed) > 1 and self._failed[0] is not None:
            raise InputError(self._failed[0])
