"""An annotator of one's own: the number of words of each document, and whether it is short, medium or long."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import Annotator, AnnotatorConfig
from colophon.annotators.columns import string_column

LABELS = pa.array(["short", "medium", "long"])


class LengthConfig(AnnotatorConfig):
    """The keys of `[annotators.length]` in a recipe, with their types and defaults."""

    type_name = "length"

    medium: int = 20
    """The number of words from which a document is medium."""
    long: int = 60
    """The number of words from which a document is long."""

    def build(self, name: str) -> Length:
        """Return the annotator; `name` is the word after `annotators.` in the recipe."""
        return Length(name, self)


class Length(Annotator):
    """Writes `NAME` (string) and `NAME_words` (int32); both are null for a null text."""

    columns = ("text",)

    def __init__(self, name: str, config: LengthConfig) -> None:
        self.name = name
        self.schema = pa.schema([(name, pa.string()), (f"{name}_words", pa.int32())])
        self._edges = (config.medium, config.long)

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return one row for each row of `batch`, in the same order."""
        words = pc.count_substring_regex(string_column(batch, "text"), r"\S+").cast(pa.int32())
        medium, long = (pc.greater_equal(words, edge).cast(pa.int8()) for edge in self._edges)
        return pa.record_batch([LABELS.take(pc.add(medium, long)), words], schema=self.schema)
