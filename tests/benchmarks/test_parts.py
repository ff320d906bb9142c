"""Numbers computed from measurements: speeds, the projected limit, shares, sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.job import Classifier, Job, Vocabulary
from benchmarks.parts import pack_speeds, part_speeds, projected_limit, shares
from benchmarks.scaling import sized
from benchmarks.workload import Workload, text_bytes_of, within

_CLASSIFIER = Classifier(model="m", labels=("a",))
_JOB = Job(
    files=("f",),
    output="o",
    workers=2,
    quality=_CLASSIFIER,
    high="a",
    topic=_CLASSIFIER,
    vocabulary=Vocabulary(tiktoken="t", pattern_name="gpt2", pattern="p", huggingface="h", num_ids=9),
    json_lines="j",
)
WORKLOAD = Workload(
    name="w", job=_JOB, start=_JOB, text_bytes=100_000_000, documents=1000, start_text_bytes=20_000_000, models=()
)


def test_the_limit_is_the_sum_of_the_parts_over_the_workers() -> None:
    speeds = {"read": 400.0, "kernel": 40.0, "tokenize": 50.0, "write": 400.0}
    found = projected_limit(speeds, WORKLOAD, wall=5.0, start=1.8, of_the_pass=4.0)
    assert found["megabytes_per_second"] == pytest.approx(40)
    assert found["seconds"] == pytest.approx(2.5)
    assert found["with_start"] == pytest.approx(0.5)
    assert found["pass_alone"] == pytest.approx(0.625)
    assert found["without_start"] == pytest.approx(80 / 40 / 3.2)


def test_no_fraction_if_the_start_took_longer() -> None:
    speeds = dict.fromkeys(("read", "kernel", "tokenize", "write"), 10.0)
    assert "without_start" not in projected_limit(speeds, WORKLOAD, wall=1.0, start=1.8, of_the_pass=1.0)


def test_shares_exclude_loading() -> None:
    seconds = {"load": 8.0, "read": 2.0, "annotate": 4.0, "tokenize": 2.0, "pack": 0.0, "write": 2.0}
    run = {"passes": {"annotate, tokenize": {"worker_seconds": seconds}}}
    found = shares([run, run])
    assert found == {"reading": 0.2, "scoring": 0.4, "tokenizing": 0.2, "writing": 0.2, "loading_seconds": 8.0}


def test_speeds_are_text_over_seconds() -> None:
    score = {"text_bytes": 2_000_000, "seconds": {"kernel": 0.1, "annotators": 0.2, "library": 1.0}}
    tokenize = {"text_bytes": 3_000_000, "seconds": {"tokenize": 0.5, "load": 9.0}}
    found = part_speeds(
        {
            "read": [{"text_bytes": 1_000_000, "seconds": {"read": 0.01}}],
            "score": [score],
            "tokenize_engine": [tokenize],
            "tokenize_tiktoken": [tokenize],
            "write": [{"text_bytes": 1_000_000, "seconds": {"annotations": 0.1, "tokens": 0.3}}],
        }
    )
    rounded = {name: [round(value, 6) for value in values] for name, values in found.items()}
    assert rounded == {
        "read": [100],
        "kernel": [20],
        "annotate": [10],
        "library": [2],
        "tokenize": [6],
        "tiktoken": [6],
        "write": [2.5],
    }


def test_packing_is_counted_in_tokens_of_text() -> None:
    run = {"tokens": 8_000_000, "packed_tokens": {"plain": 9_000_000}, "seconds": {"plain": 0.1, "plain_metadata": 0.1}}
    found = pack_speeds([run])["plain"]
    assert found["pack"]["median"] == pytest.approx(80)
    assert found["with_metadata"]["median"] == pytest.approx(40)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three files of 1, 2 and 3 MB of text."""
    paths = [tmp_path / f"{i}.parquet" for i in (1, 2, 3)]
    for number, path in enumerate(paths, start=1):
        pq.write_table(pa.table({"text": ["ü" * 500_000] * number, "id": list("abc")[:number]}), path)
    return paths


@pytest.mark.parametrize(
    ("megabytes", "names", "total"),
    [
        (0.1, ["0-1.parquet"], 1),
        (2.6, ["0-1.parquet", "0-2.parquet"], 3),
        (6, ["0-1.parquet", "0-2.parquet", "0-3.parquet"], 6),
        (7.1, ["0-1.parquet", "0-2.parquet", "0-3.parquet", "1-1.parquet"], 7),
    ],
)
def test_inputs_of_a_size_are_links_to_whole_files(
    tmp_path: Path, files: list[Path], megabytes: float, names: list[str], total: float
) -> None:
    for _ in range(2):  # again into the same directory
        links, size = sized(files, megabytes, directory=tmp_path / "sizes")
        assert [link.name for link in links] == names
        assert size == pytest.approx(total)
        assert sum(map(text_bytes_of, links)) == pytest.approx(total * 1e6)
        assert sorted(path.name for path in (tmp_path / "sizes").iterdir()) == names


def test_an_input_is_cut_at_whole_files(files: list[Path]) -> None:
    assert within(files, None) == files
    assert within(files, 0.1) == files[:1]
    assert within(files, 3.5) == files[:2]
    assert within(files, 100) == files


def test_workers_divide_the_limit() -> None:
    speeds = dict.fromkeys(("read", "kernel", "tokenize", "write"), 10.0)
    four = replace(WORKLOAD, job=replace(_JOB, workers=4))
    one = projected_limit(speeds, WORKLOAD, wall=10, start=1, of_the_pass=9)["seconds"]
    assert projected_limit(speeds, four, wall=10, start=1, of_the_pass=9)["seconds"] == pytest.approx(one / 2)
