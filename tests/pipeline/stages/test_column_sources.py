"""The source of a column: the input for FineWeb's names and unknown ones, else the annotator that writes it."""

from __future__ import annotations

import pyarrow as pa

from colophon.annotators.base import Annotator
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.stages.column_sources import ColumnSources


class Columns(Annotator):
    """Reads and writes the named columns."""

    def __init__(self, name: str, *, reads: tuple[str, ...], writes: tuple[str, ...]) -> None:
        self.name = name
        self.columns = reads
        self.settings = {}
        self.schema = pa.schema([(column, pa.int32()) for column in writes])

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        raise NotImplementedError


SOURCES = ColumnSources(
    (
        Columns("url", reads=("url",), writes=("url", "url_host")),
        Columns("quality", reads=("text", "rank"), writes=("quality",)),
        Columns("mean", reads=("quality", "url", "url_host"), writes=("mean",)),
    ),
    {"text": "content", "rank": "page_rank"},
)


def test_each_written_column_has_one_annotator() -> None:
    assert SOURCES.annotator_of == {"url": "url", "url_host": "url", "quality": "quality", "mean": "mean"}


def test_names_of_fineweb_always_mean_the_input() -> None:
    assert {column: SOURCES.source(column) for column in ("url", "url_host", "quality", "rank")} == {
        "url": None,
        "url_host": "url",
        "quality": "quality",
        "rank": None,
    }


def test_annotators_need_the_columns_of_the_input_once_under_its_names() -> None:
    assert SOURCES.annotate_needs == (
        ColumnNeed("url", "url"),
        ColumnNeed("text", "content"),
        ColumnNeed("rank", "page_rank"),
    )


def test_tokenizing_needs_the_text_and_takes_an_id() -> None:
    assert SOURCES.tokenize_needs == (ColumnNeed("text", "content"), ColumnNeed("id", "id", required=False))
