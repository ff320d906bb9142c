from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.shards.annotations import AnnotationColumn, annotators_by_column, find_column
from colophon.shards.common.errors import ShardError
from colophon.shards.manifest import Manifest, OutputManifest
from colophon.shards.records import Record
from tests.recorded import record_of

ANNOTATIONS: dict[str, list[dict[str, list[Any]]]] = {
    "quality": [{"score": [0.5, None, 0.25]}, {"score": [1.0]}, {"score": []}],
    "url": [{"host": ["a.org", "b.org", "a.org"], "path": ["/", "/x", "/y"]}, {"host": ["c.org"], "path": ["/"]}],
}
"""Columns of each partition; `url` has not come to partition 2."""
TYPES = {"score": pa.float32(), "host": pa.string(), "path": pa.string(), "tags": pa.list_(pa.string())}


def write(path: Path, columns: dict[str, list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: pa.array(values, TYPES[name]) for name, values in columns.items()}), path)


def manifest_of(outputs: dict[str, list[Record]]) -> Manifest:
    contents = {output: OutputManifest(settings={}, records=records) for output, records in outputs.items()}
    return Manifest(colophon_version="0", recipe={}, partitions=[], outputs=contents)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """The manifest of a run in `tmp_path`."""
    outputs = {}
    for annotator, partitions in ANNOTATIONS.items():
        output = f"annotations/{annotator}"
        for number, columns in enumerate(partitions):
            write(tmp_path / output / f"{number}.parquet", columns)
        sizes = [len(next(iter(columns.values()))) for columns in partitions]
        outputs[output] = [
            record_of(tmp_path, tmp_path / output / f"{number}.parquet", rows=rows) for number, rows in enumerate(sizes)
        ]
    return manifest_of(outputs)


@pytest.fixture
def score(manifest: Manifest, tmp_path: Path) -> AnnotationColumn:
    return find_column(tmp_path, manifest, "score")


def test_a_column_is_read_by_partition(score: AnnotationColumn) -> None:
    assert score.annotator == "quality"
    assert [score.read(str(partition)).to_pylist() for partition in range(3)] == [[0.5, None, 0.25], [1.0], []]
    assert score.read("2").type == pa.float32()


def test_a_column_that_no_annotator_has_or_that_holds_lists(manifest: Manifest, tmp_path: Path) -> None:
    assert annotators_by_column(tmp_path, manifest) == {"score": "quality", "host": "url", "path": "url"}
    with pytest.raises(ShardError) as raised:
        find_column(tmp_path, manifest, "hots")
    line = f"{tmp_path}: no annotator has a column 'hots'; available: host, path, score. Did you mean 'host'?"
    assert str(raised.value) == line
    tags = tmp_path / "annotations/tags/0.parquet"
    write(tags, {"tags": [["a"]], "path": ["/"]})
    listed = manifest_of({"annotations/tags": [record_of(tmp_path, tags, rows=1)]})
    with pytest.raises(ShardError, match=r"column 'tags' is list<[a-z]+: string>, not one value; available: path$"):
        find_column(tmp_path, listed, "tags")
    with pytest.raises(ShardError, match=r"no annotator has a column 'score'; available: none$"):
        find_column(tmp_path, manifest_of({"annotations/quality": []}), "score")


def test_a_partition_without_a_file_of_the_annotator(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"annotator 'url' has no file of partition 2$"):
        find_column(tmp_path, manifest, "host").read("2")


class TestFilesThatDifferFromTheirRecords:
    def test_of_a_different_size(self, score: AnnotationColumn, tmp_path: Path) -> None:
        path = tmp_path / "annotations/quality/1.parquet"
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(ShardError, match=rf"1\.parquet has 100 bytes; its record states {size} bytes"):
            score.read("1")
        path.unlink()
        with pytest.raises(ShardError, match=rf"1\.parquet is missing; its record states {size} bytes"):
            score.read("1")

    def test_damaged(self, score: AnnotationColumn, tmp_path: Path) -> None:
        path = tmp_path / "annotations/quality/1.parquet"
        path.write_bytes(b"x" * path.stat().st_size)
        with pytest.raises(ShardError, match=r"1\.parquet: cannot be read: "):
            score.read("1")

    def test_a_link_to_a_path_outside_the_run(self, score: AnnotationColumn, tmp_path: Path) -> None:
        path = tmp_path / "annotations/quality/1.parquet"
        elsewhere = shutil.copy(path, tmp_path.parent / f"{tmp_path.name}-elsewhere.parquet")
        path.unlink()
        path.symlink_to(elsewhere)
        with pytest.raises(ShardError, match=r"1\.parquet: a symbolic link, not a regular file"):
            score.read("1")

    @pytest.mark.parametrize(
        ("columns", "rows", "message"),
        [
            ({"score": [1.0, 2.0]}, 1, r"1\.parquet has 2 rows; its record has 1$"),
            ({"host": ["a.org"]}, 1, r"1\.parquet lacks the column 'score' of other partitions$"),
        ],
    )
    def test_of_different_content(self, columns: dict[str, list[Any]], rows: int, message: str, tmp_path: Path) -> None:
        output = "annotations/quality"
        write(tmp_path / output / "0.parquet", {"score": [0.0]})
        write(tmp_path / output / "1.parquet", columns)
        records = [
            record_of(tmp_path, tmp_path / output / "0.parquet", rows=1),
            record_of(tmp_path, tmp_path / output / "1.parquet", rows=rows),
        ]
        with pytest.raises(ShardError, match=message):
            find_column(tmp_path, manifest_of({output: records}), "score").read("1")
