"""JSON lines as record batches; a line that is not a document is reported by its number, and the next line follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa

from colophon.pipeline.inputs.columns import PLACE, ColumnNeed
from colophon.pipeline.inputs.jsonl.documents import BadLineError, LineParser
from colophon.pipeline.inputs.jsonl.lines import Line, LongLine, lines_of
from colophon.pipeline.inputs.jsonl.pieces import open_blocks
from colophon.pipeline.inputs.jsonl.start import Start
from colophon.pipeline.inputs.limits import TOO_LARGE, line_limit, line_too_large
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.problems import Problems
from colophon.pipeline.inputs.row_batches import row_batches


def jsonl_batches(
    partition: Partition, needs: Sequence[ColumnNeed], *, problems: Problems, wrong: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """The needed columns of the documents of a file or a piece, under FineWeb names, and `PLACE`: the byte of the
    decompressed file at which the document's line begins. Blank lines are skipped.

    Args:
        partition: a whole file, or a piece of it.
        needs: the columns.
        problems: gets the lines that are not documents, and the number of all lines.
        wrong: gets the values that became null because of their type, by FineWeb name.

    Raises:
        InputError: the file is not UTF-8, or is JSON over several lines.
    """
    return row_batches(_rows(partition, needs, problems), [*needs, PLACE], wrong=wrong)


def _rows(partition: Partition, needs: Sequence[ColumnNeed], problems: Problems) -> Iterator[tuple[Sequence[Any], int]]:
    most_bytes = partition.max_document_bytes
    parse = LineParser(partition.text, needs, max_document_bytes=most_bytes)
    start = Start() if partition.piece is None or partition.piece.number == 0 else None
    with open_blocks(partition.url, partition.piece, limit=line_limit(most_bytes)) as blocks:
        for begin, content in blocks:
            if isinstance(content, LongLine):
                reason = line_too_large(f"a line of {content.num_bytes:,} bytes", most_bytes)
                problems.add(problems.num_lines + 1, reason, kind=TOO_LARGE)
                problems.num_lines += 1
                continue
            lines = lines_of(content)
            documents, bad = _parsed(content, lines, parse)
            if start is not None:
                start.check(min(documents, default=None), [(place, lines[place], error) for place, error in bad])
            for place, error in bad:
                problems.add(problems.num_lines + place + 1, str(error), kind=error.kind)
            sizes = list(map(len, lines))
            problems.num_lines += len(lines)
            places = [begin, *(begin + end for end in accumulate(size + 1 for size in sizes[:-1]))]
            del content, lines  # a document may be large: its line, its values and its array do not all exist at once
            for number in list(documents):
                yield [*documents.pop(number), places[number]], sizes[number]


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
