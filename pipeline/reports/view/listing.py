"""Documents as the page shows them: a line of a list, or a whole one. All strings are printable and not long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from colophon.pipeline.errors import printable
from colophon.pipeline.reports.view.documents import Documents
from colophon.pipeline.reports.view.texts import Texts
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import ShardError

LONGEST_TEXT = 20_000
"""Characters of a document that one call returns."""
_LONGEST_VALUE = 300
_LONGEST_WHOLE_VALUE = 4_000
_SNIPPET_TOKENS = 80
_BEFORE, _AFTER = 100, 240
"""Characters of a snippet before and after the text that was searched."""
_KEPT_TABLES = 8


def shown(value: object, *, most: int = _LONGEST_VALUE) -> Any:
    """A JSON value; of a string at most `most` characters, with those visible that control the direction of text."""
    if not isinstance(value, str):
        return value
    return printable(value[:most]) + ("…" if len(value) > most else "")


class Listing:
    """The documents of a run as JSON. Threads may share it."""

    def __init__(self, documents: Documents, texts: Texts | None, *, reason: str = "") -> None:
        """Show these documents; without `texts`, for the `reason`, their annotations alone."""
        self._documents, self._texts, self._reason = documents, texts, reason
        self._table = lru_cache(_KEPT_TABLES)(self._read_table)

    def shown(self, numbers: NumPyArray, *, text: str = "") -> list[dict[str, Any]]:
        """The documents with these ascending numbers, each with its snippet: around `text`, or its beginning.

        Raises:
            ShardError: a file cannot be read or differs from its record.
        """
        values = self._documents.values(numbers)
        lines = [
            {
                "number": number,
                "values": {name: shown(value) for name, value in found.items()},
                **self._line(number, text),
            }
            for number, found in zip(numbers.tolist(), values, strict=True)
        ]
        return lines

    def document(self, number: int) -> dict[str, Any]:
        """A document: its place, id, number of tokens and annotations by annotator.

        Raises:
            IndexError: there is no such document.
            ShardError: a file cannot be read or differs from its record.
        """
        partition, row = self._documents.locate(number)
        (values,) = self._documents.values(np.array([number]))
        annotators = self._documents.columns
        found = {
            "number": number,
            "partition": shown(partition),
            "row": row,
            "annotations": [
                {
                    "annotator": shown(annotators[name]),
                    "column": shown(name),
                    "value": shown(value, most=_LONGEST_WHOLE_VALUE),
                }
                for name, value in values.items()
            ],
        }
        return found if self._texts is None else {**found, "id": self._id(number), "tokens": len(self._ids(number))}

    def text(self, number: int, *, first: int) -> dict[str, Any]:
        """At most `LONGEST_TEXT` characters of a document's text from character `first`, and the number of all.

        Raises:
            IndexError: there is no such document.
            ShardError: there are no texts, or a file cannot be read or differs from its record.
        """
        text = self._known_texts.whole(self._ids(number))
        part = text[first : first + LONGEST_TEXT]
        return {"text": printable(part), "next": first + len(part), "characters": len(text)}

    def texts(self, numbers: NumPyArray) -> Iterator[tuple[NumPyArray, pa.Array]]:
        """Yield parts of the ascending numbers with their texts, see `Texts.batches`.

        Raises:
            ShardError: there are no texts, or a file cannot be read or differs from its record.
        """
        texts = self._known_texts
        for partition, first, own in self._documents.by_partition(numbers):
            for rows, found in texts.batches(partition, own - first):
                yield rows + first, found

    @property
    def _known_texts(self) -> Texts:
        if self._texts is None:
            raise ShardError(f"there are no texts: {self._reason}")
        return self._texts

    def _line(self, number: int, text: str) -> dict[str, Any]:
        if self._texts is None:
            return {}
        ids = self._ids(number)
        if text:
            whole = self._texts.whole(ids)
            found = re.search(re.escape(text), whole, re.IGNORECASE)
            start, end = found.span() if found else (0, 0)  # `ẞ` is found as `ß` by other rules than those of `re`
            before, after = whole[max(start - _BEFORE, 0) : start], whole[end : end + _AFTER]
            parts = ["…" + before if start > _BEFORE else before, whole[start:end], after]
        else:
            parts = ["", "", self._texts.beginning(ids, tokens=_SNIPPET_TOKENS)[:_LONGEST_VALUE]]
        return {"id": self._id(number), "tokens": len(ids), "snippet": [printable(part) for part in parts]}

    def _ids(self, number: int) -> NumPyArray:
        partition, row = self._documents.locate(number)
        found = self._table(partition).column("input_ids")[row].values
        return np.asarray(found.to_numpy())

    def _id(self, number: int) -> Any:
        partition, row = self._documents.locate(number)
        return shown(self._table(partition).column("id")[row].as_py())

    def _read_table(self, partition: str) -> pa.Table:
        return self._known_texts.table(partition)
