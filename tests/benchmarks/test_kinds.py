"""Measuring kinds of fastText models: models of each kind, differences to the library, the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import show
from benchmarks.kinds import Kind, differences, run, spread_texts

_SMALL = {"dim": 4, "buckets": 300, "epoch": 5}  # the library quantizes 256 rows or more
KINDS = (
    Kind(name="hs", title="a tree", labels=3, settings={**_SMALL, "loss": "hs"}),
    Kind(name="many", title="many labels, quantized", labels=30, settings=_SMALL, quantized={"qnorm": True}),
)


@pytest.fixture(scope="module")
def training_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 texts of 40 places and 4 topics."""
    rng = np.random.default_rng(0)
    table = {
        "text": [" ".join(rng.choice([f"word{i % 40}", "the", "a", "of"], 30)) for i in range(400)],
        "url": [f"https://example.com/r/{i % 40}/page" for i in range(400)],
        "topic": [f"topic {i % 4}" for i in range(400)],
    }
    path = tmp_path_factory.mktemp("kinds") / "train.parquet"
    pq.write_table(pa.table(table), path)
    return path


def test_kinds_are_trained_measured_and_shown(training_file: Path, tmp_path: Path) -> None:
    groups = {"some": spread_texts([training_file], megabytes=0.02)}
    result = run(KINDS, groups, training_file, rounds=2, work=tmp_path / "models")
    assert result["documents"]["some"] < 400
    tree, many = result["kinds"]["hs"], result["kinds"]["many"]
    assert (tree["loss"], tree["labels"], tree["collapsed"]) == ("hs", 3, True)
    assert (many["loss"], many["labels"], many["collapsed"]) == ("ova", 30, False)
    for kind in (tree, many):
        found = kind["groups"]["some"]
        assert found["top_labels_that_differ"] == 0
        assert found["largest_difference"] < 1e-6
        assert len(found["times_faster"]["values"]) == 2
    (tmp_path / show.KINDS).write_text(json.dumps(result))
    table = show.tables(tmp_path).splitlines()
    assert table[0].endswith("median of 2 interleaved rounds.")
    assert [line.split(" | ")[0] for line in table[4:]] == ["| a tree", "| many labels, quantized"]


def test_differences_are_those_of_labels_that_the_library_lists() -> None:
    theirs = np.array([[0.7, 0.3, 0.0], [0.4, 0.5, 0.1], [np.nan] * 3])
    ours = np.array([[0.7, 0.29, 0.00001], [0.5, 0.4, 0.1], [np.nan] * 3], np.float32)
    assert differences(ours, theirs) == {"largest_difference": 0.1, "top_labels_that_differ": 1}
    with pytest.raises(SystemExit, match="scores texts that the library does not"):
        differences(ours[::-1], theirs)
