"""A recipe whose paths are spelled differently is the same input: nothing is redone, and no old file is left."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.shards.arrow_files import read_table
from tests.pipeline.project import data_files, generated_id, manifest, redone, run, snapshot

SPELLINGS = [
    "data",
    "data/",
    "./data/*.parquet",
    "{here}/data",
    "{here}/../{name}/data/part-*.parquet",
    "file://{here}/data/**/*.parquet",
    "link",
    "link/[p]art-?.parquet",
]


@pytest.fixture
def without_ids(finished: Path) -> Path:
    """A finished project whose last file has no ids."""
    pq.write_table(pq.read_table("data/part-2.parquet").drop_columns("id"), "data/part-2.parquet")
    assert run().code == 0
    Path("link").symlink_to("data")
    return finished


def test_a_different_spelling_redoes_nothing(without_ids: Path) -> None:
    files, data, made = snapshot(Path("out")), data_files(Path("out")), manifest()
    for spelling in [*SPELLINGS, '["data/part-2.parquet", "link/part-0.parquet", "data"]']:
        path = spelling.format(here=without_ids, name=without_ids.name)
        called = run("--set", f"input.paths={path}")
        assert (called.code, called.err) == (0, "")
        assert redone(files, snapshot(Path("out"))) == set()
        assert data_files(Path("out")) == data
        assert {p.name for p in manifest().partitions} == {p.name for p in made.partitions}
        assert manifest().outputs.keys() == made.outputs.keys()


def test_generated_ids_do_not_depend_on_the_spelling(without_ids: Path) -> None:
    (record, *_) = [r for r in manifest().outputs["tokens"].records if r.partition.startswith("part-2-")]
    path = Path("out", record.path)
    ids = read_table(path).column("id")
    assert ids.to_pylist()[:2] == [generated_id("data/part-2.parquet", row) for row in (0, 1)]
    assert run("--set", "input.paths=link", "--set", "output.path=other").code == 0
    assert read_table(Path("other", record.path)).column("id").equals(ids)
    assert pa.types.is_string(ids.type)
