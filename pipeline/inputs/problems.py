"""Lines and records that are no documents, grouped by reason: one entry for a thousand of a kind."""

from __future__ import annotations

from dataclasses import dataclass, field

from colophon.pipeline.inputs.partitions import Partition
from colophon.shards.manifest import MAX_EXAMPLES, QuarantineEntry, QuarantineExample

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
    _groups: dict[str, list[QuarantineExample]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _rest: QuarantineEntry | None = None

    def add(self, line: int, reason: str, *, kind: str) -> None:
        """Count a line or record, numbered from 1, that is no document.

        Args:
            line: its number in the file.
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
