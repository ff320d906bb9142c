"""Footers are parsed once for all partitions of a file, and again when the file has changed."""

from __future__ import annotations

import gc
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.inputs import partitions
from colophon.pipeline.inputs.columnar import footers
from colophon.pipeline.inputs.columnar.footers import footer_of, read_footer
from colophon.pipeline.inputs.partitions import plan_inputs, present_identity
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.schema import InputSection
from tests.pipeline.inputs.reading import NEEDS
from tests.pipeline.inputs.test_readers import reason_of


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the footer of each file was parsed."""
    monkeypatch.chdir(tmp_path)
    counts: Counter[str] = Counter()

    def counted(url: str) -> pq.FileMetaData:
        counts[Path(url).name] += 1
        return read_footer(url)

    for module in (footers, partitions):
        monkeypatch.setattr(module, "read_footer", counted)
    return counts


def write(name: str, texts: list[str]) -> None:
    pq.write_table(pa.table({"text": texts}), name, row_group_size=1)


def test_a_footer_is_parsed_by_the_plan_and_once_by_a_worker(opened: Counter[str]) -> None:
    for name in ("a.parquet", "b.parquet"):
        write(name, [f"{name} {row}" for row in range(20)])
    parts = plan_inputs(InputSection(paths=["*.parquet"], partition_bytes=1), needs=NEEDS[:1]).partitions
    assert len(parts) == 40
    alternately = [part for pair in zip(parts[:20], parts[20:], strict=True) for part in pair]
    texts = [t for part in alternately for batch in PartitionReader(part, NEEDS[:1], stage="t") for t in batch["text"]]
    assert len(set(texts)) == 40
    assert opened == {"a.parquet": 2, "b.parquet": 2}


def test_a_plan_keeps_no_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without the garbage collector, which seldom runs: those of a thousand files are gigabytes."""
    monkeypatch.chdir(tmp_path)
    for n in range(3):
        write(f"{n}.parquet", ["a"])
    gc.collect()
    gc.disable()
    try:
        before = _footers_in_memory()
        assert len(plan_inputs(InputSection(paths=["*.parquet"]), needs=NEEDS[:1]).partitions) == 3
        assert _footers_in_memory() == before
    finally:
        gc.enable()


def _footers_in_memory() -> int:
    return sum(isinstance(each, pq.FileMetaData) for each in gc.get_objects())


@pytest.mark.parametrize("keeps_time", [False, True])
def test_a_changed_file_has_its_new_footer(opened: Counter[str], keeps_time: bool) -> None:
    """Also with the old size and time of change, which any program can set."""
    write("a.parquet", ["a", "b"])
    (part,) = plan_inputs(InputSection(paths=["a.parquet"]), needs=NEEDS[:1]).partitions
    assert present_identity(part) == part.identity
    before = Path("a.parquet").stat()
    write("a.parquet", ["a", "c"])
    if keeps_time:
        os.utime("a.parquet", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Path("a.parquet").stat().st_size == before.st_size
    assert present_identity(part) != part.identity
    assert reason_of(PartitionReader(part, NEEDS[:1], stage="t")).startswith("the file was changed during the run")


def test_few_large_footers_are_kept(opened: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(4):
        write(f"{n}.parquet", ["a"])
    size = footer_of(str(Path("0.parquet").absolute())).metadata.serialized_size
    monkeypatch.setattr(footers, "_KEPT_BYTES", 2 * size)
    for n in (0, 1, 2, 0, 1, 2, 2, 1):
        footer_of(str(Path(f"{n}.parquet").absolute()))
    assert opened == {"0.parquet": 2, "1.parquet": 2, "2.parquet": 2}
    monkeypatch.setattr(footers, "_KEPT_BYTES", 1)
    for n in (3, 3, 2, 3):
        footer_of(str(Path(f"{n}.parquet").absolute()))
    assert (opened["3.parquet"], opened["2.parquet"]) == (2, 3)
