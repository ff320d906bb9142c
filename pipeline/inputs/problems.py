"""Lines and records that are no documents, grouped by reason: one entry for a thousand of a kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from colophon.pipeline.inputs.partition_table import Partition
from colophon.shards.records import LINES_OF_PIECE, MAX_EXAMPLES, QuarantineEntry, QuarantineExample, Record, file_of

_MAX_REASON = 500
"""Characters of a reason; a reason may list the keys of a line, of which there can be any number."""
_MAX_KINDS = 100
_OTHER_KIND = "other"
"""The kind of all further problems: a kind may contain a name from the file."""


@dataclass
class Problems:
    """Counts what was excluded from one partition. Memory depends on the number of kinds alone."""

    partition: Partition
    stage: str
    """The stage that reads."""
    num_lines: int = 0
    """All lines of a JSONL file that were read, documents and blank lines included."""
    _groups: dict[str, list[QuarantineExample]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _rest: QuarantineEntry | None = None

    def add(self, line: int, reason: str, *, kind: str) -> None:
        """Count a line or record, numbered from 1, that is no document.

        Args:
            line: its number in the file, or in the piece of a file.
            reason: why it is no document.
            kind: the same for all that are counted together.
        """
        kind = kind if kind in self._counts or len(self._counts) < _MAX_KINDS else _OTHER_KIND
        self._counts[kind] = self._counts.get(kind, 0) + 1
        examples = self._groups.setdefault(kind, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(QuarantineExample(line=line, reason=shortened(reason)))

    def end(self, line: int, reason: str) -> None:
        """Note that nothing was read from this record on: the file is damaged there."""
        self._rest = self._entry(line, shortened(reason), rows=None)

    @property
    def count(self) -> int:
        """The number of lines and records that were added."""
        return sum(self._counts.values())

    @property
    def entries(self) -> list[QuarantineEntry]:
        """One entry for each kind, in the order of their first lines, and one for the rest of a damaged file."""
        entries = [
            self._entry(
                examples[0].line,
                examples[0].reason,
                rows=self._counts[kind],
                count=self._counts[kind],
                examples=examples if self._counts[kind] > 1 else [],
            )
            for kind, examples in self._groups.items()
        ]
        entries.sort(key=lambda entry: entry.line or 0)
        return entries if self._rest is None else [*entries, self._rest]

    def _entry(
        self,
        line: int,
        reason: str,
        *,
        rows: int | None,
        count: int = 1,
        examples: list[QuarantineExample] | None = None,
    ) -> QuarantineEntry:
        return QuarantineEntry(
            source=self.partition.source,
            partition=self.partition.name,
            stage=self.stage,
            line=line,
            reason=reason,
            rows=rows,
            count=count,
            examples=examples or [],
        )


def shortened(reason: str) -> str:
    """The reason in at most 500 characters."""
    return reason if len(reason) <= _MAX_REASON else reason[: _MAX_REASON - 1] + "…"


def problems_in_files(records: Iterable[Record]) -> Iterator[QuarantineEntry]:
    """The problems in the records of one output, with line numbers of the files.

    A worker counts the lines of its piece of a JSONL file from 1: nobody has read those before it. Where a piece before
    has no record, the reason states that the number is one in the piece.

    Args:
        records: those of one output, in the order of the partitions.
    """
    file, next_number, lines_before = "", 0, 0
    for record in records:
        lines = record.counts.get(LINES_OF_PIECE)
        if lines is None:
            yield from record.problems
            continue
        if file_of(record.partition) != file:
            file, next_number, lines_before = file_of(record.partition), 0, 0
        number = int(record.partition.rpartition("-")[2])
        for problem in record.problems:
            yield _moved(problem, lines_before) if number == next_number else _in_piece(problem)
        if number == next_number:
            next_number, lines_before = number + 1, lines_before + lines


def _moved(problem: QuarantineEntry, lines: int) -> QuarantineEntry:
    """The problem with numbers that count `lines` more."""
    examples = [example.model_copy(update={"line": example.line + lines}) for example in problem.examples]
    return problem.model_copy(update={"line": (problem.line or 0) + lines, "examples": examples})


def _in_piece(problem: QuarantineEntry) -> QuarantineEntry:
    reason = f"{problem.reason} (lines are counted from the beginning of {problem.partition})"
    return problem.model_copy(update={"reason": reason})
