"""The benchmark of many partitions: its inputs have as many as they should, and its table has every size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.scale import KINDS, plan, table, write_input


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_has_as_many_partitions_as_were_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(scale, "_FILES_OF_A_DIRECTORY", 4)
    monkeypatch.setattr(scale, "_ROW_GROUPS_OF_A_FILE", 2)
    write_input(kind, 10, tmp_path / "input")
    found = plan(tmp_path / "input")
    assert found["partitions"] == 10
    assert 0 <= found["search_seconds"] <= found["seconds"]
    assert found["peak_mb"] > 1


def test_the_table_has_every_input_and_the_lines() -> None:
    runs = {
        size: [{"partitions": int(size), "seconds": int(size) / 1e5, "cpu_seconds": int(size) / 2e5, "peak_mb": 100.0}]
        for size in ("10000", "100000")
    }
    results = {"machine": dict.fromkeys(("cpu", "cores", "memory_gb", "system"), 2), "rounds": 1}
    text = table({**results, "kinds": {"jsonl": scale._summary(runs)}})
    assert "| JSONL files | 100,000 | 1.0 | 0.5 | 100 MB |" in text
    assert "JSONL files: 5 µs of CPU (R² = 1.0000)" in text
