"""An annotator's file while it is written: row groups are bounded in rows and in bytes."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.stages import annotation
from colophon.pipeline.stages.annotation import AnnotationFile

SCHEMA = pa.schema([("url", pa.string())])


@pytest.mark.parametrize(("size", "row_groups"), [(10, 1), (10_000, 4)])
def test_long_values_are_written_before_they_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, row_groups: int
) -> None:
    monkeypatch.setattr(annotation, "_ROW_GROUP_BYTES", 1 << 20)
    path = tmp_path / "a.parquet"
    urls = [f"{n:05d}" + "x" * size for n in range(400)]
    with AnnotationFile(mock.Mock(path=path), SCHEMA) as file:
        for first in range(0, len(urls), 10):
            some = urls[first : first + 10]
            file.add(pa.record_batch([[url[:5] for url in some], some], names=["id", "url"]))
        file.finish("", rows=400, problems=(), counts={}, content={})
    assert pq.read_metadata(path).num_row_groups == row_groups
    assert pq.read_table(path)["url"].to_pylist() == urls
