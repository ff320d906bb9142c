"""Tables and the chart, from JSON alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import show
from benchmarks.__main__ import main
from benchmarks.summary import Spread


def spread(*values: float) -> dict[str, Any]:
    return Spread.of(values).as_dict()


def contestant(title: str, *walls: float) -> dict[str, Any]:
    return {
        "title": title,
        "wall_seconds": spread(*walls),
        "start_seconds": spread(2.0),
        "megabytes_per_second": spread(*(100 / wall for wall in walls)),
        "documents_per_second": spread(*(5000 / wall for wall in walls)),
        "peak_pss_bytes": 1_500_000_000,
    }


WHOLE_JOB = {
    "workers": 2,
    "rounds": 3,
    "machine": {"cpu": "Some CPU", "cores": 2, "memory_gb": 8.0, "system": "Linux x86_64"},
    "input": {
        "name": "web",
        "files": 4,
        "documents": 5000,
        "text_bytes": 100_000_000,
        "start_text_bytes": 1_000_000,
        "classifiers": [{"bytes": 900_000_000, "labels": 2}, {"bytes": 2_200_000_000, "labels": 24}],
    },
    "contestants": {
        "colophon": contestant("Colophon", 9.0, 10.0, 11.0),
        "peer": contestant("A peer", 100.0, 120.0, 90.0),
        "quick": {**contestant("Quick", 5.0, 5.0, 5.0), "peak_pss_bytes": None},
    },
    "ratios": {"peer": 10.0, "quick": 0.5},
    "ratio_details": {"peer": {"ratio": 10.0}, "quick": {"ratio": 0.5}},
    "ratios_without_start": {"peer": 12.5},
    "left_out": {"other": "not installed: other"},
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / show.WHOLE_JOB).write_text(json.dumps(WHOLE_JOB))
    return tmp_path


def test_the_table_names_everything(results: Path) -> None:
    lines = show.tables(results).splitlines()
    assert lines[0] == (
        "100 MB of text (web, 5,000 documents, 4 files); classifiers of 0.9 GB (2 labels) and 2.2 GB (24 labels); "
        "2 workers each; Some CPU, 2 cores, 8.0 GB, Linux x86_64; median of 3 interleaved rounds."
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert len({len(row) for row in rows}) == 1
    assert [row[0] for row in rows[2:]] == ["Quick", "Colophon", "A peer", "other"]
    assert rows[3][1:] == ["10.0 (9.0–11.0)", "1.9 + 0.0808 × MB", "10.00", "500", "1.5 GB", ""]
    assert rows[4][-1] == "**10.0 x** (12.5 x without start)"
    assert rows[2][-2:] == ["-", "**0.5 x**"]
    assert rows[5][1] == "left out: not installed: other"


def test_without_results_there_is_no_table(tmp_path: Path) -> None:
    assert show.tables(tmp_path) == ""


def test_the_chart_is_an_image(results: Path) -> None:
    pytest.importorskip("matplotlib")
    path = show.draw(results)
    assert path.read_bytes().startswith(b"\x89PNG")
    again = path.read_bytes()
    assert show.draw(results).read_bytes() == again


def test_both_from_the_command_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["table", "--results", str(results)]) == 0
    assert main(["chart", "--results", str(results)]) == 0
    assert "| Colophon |" in capsys.readouterr().out
    assert (results / show.CHART).is_file()
