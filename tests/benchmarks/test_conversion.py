"""The benchmark of `colophon convert`, on a small run."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import conversion, show
from tests.trainer.runs import write_run


def test_each_round_converts_and_copies(tmp_path: Path) -> None:
    run, results = write_run(tmp_path / "run"), tmp_path / show.CONVERSION
    options = ["--layout", "prepend", "--rounds", "2", "--only", "megatron", "--only", "parquet"]
    assert conversion.main([str(run), *options, "--results", str(results)]) == 0
    formats = json.loads(results.read_text())["formats"]
    assert set(formats) == {"megatron", "parquet"}
    for found in formats.values():
        assert found["written_mb"] > 0
        assert len(found["seconds_of_a_copy"]["values"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [show.CONVERSION, "run"], "nothing is left"
    rows = show.tables(tmp_path).splitlines()[4:]
    assert [row.split(" ")[1] for row in rows] == ["`megatron`", "`parquet`"]
