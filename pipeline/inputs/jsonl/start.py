"""The start of a JSONL file that is one JSON text over several lines."""

from __future__ import annotations

from collections.abc import Sequence

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.jsonl.documents import NO_OBJECT, BadLineError
from colophon.pipeline.inputs.jsonl.lines import Line, other_format


class Start:
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
