"""The page of costs is computed from the results, by formulas that are checked here on round numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cost.estimate import COST, PARTS, REPEATED, RESULTS, SCALING, Corpus, Range, estimate, measured
from benchmarks.cost.page import page

PAGE = Path(__file__).parents[2] / "docs" / "cost.md"


def spread(median: float, lowest: float, highest: float) -> dict[str, Any]:
    return {"median": median, "lowest": lowest, "highest": highest, "values": [lowest, highest]}


RESULTS_OF: dict[str, dict[str, Any]] = {
    COST: {
        "machine": {"cpu": "Some CPU", "cores": 2, "memory_gb": 8.0, "system": "Linux x86_64"},
        "sequence_length": 512,
        "input": {"text_bytes": 8_000_000, "documents": 4000},
        "tokens": 2_000_000,
        "bytes_per_document": {"url": 10.0},
        "bytes_per_token": {"tokens": 4.0, "plain": 5.0},
        "files_per_partition": 6.0,
        "state_bytes_per_partition": 1000.0,
        "pack_cpu_seconds_per_million_tokens": {"plain": spread(0.02, 0.01, 0.04)},
        "cpu_seconds_per_partition": spread(0.036, 0.018, 0.072),
        "requests_per_partition": {"first_run": 20.0, "nothing_to_do": 2.0},
    },
    PARTS: {"megabytes_per_second": {name: spread(50, 40, 100) for name in ("read", "annotate", "tokenize", "write")}},
    REPEATED: {
        "workers": 2,
        "input": {"text_bytes": 1_001_000_000, "start_text_bytes": 1_000_000},
        "contestants": {
            "colophon": {
                "wall_seconds": {"values": [28.0, 22.0]},
                "start_seconds": {"values": [10.0, 8.0]},
                "agreement": {"tokens": 1_001_000_000 / 4},
            }
        },
    },
    SCALING: {"workers": {"1": {"peak_pss_bytes": 1_000_000_000}, "2": {"peak_pss_bytes": 1_300_000_000}}},
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, content in RESULTS_OF.items():
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(RESULTS), "docs/cost.md is out of date: run `make docs`"


def test_rates_are_those_of_the_rounds(results: Path) -> None:
    found = measured(results)
    # Two workers, 1,000 MB more than the start's in 18 and in 14 seconds.
    assert found.core_seconds_per_megabyte == Range(middle=0.032, lowest=0.028, highest=0.036)
    assert found.parts["read"] == Range(middle=0.02, lowest=0.01, highest=0.025)
    # A token has 4 bytes of text, so a MB has 0.25 million tokens.
    assert found.pack_core_seconds_per_megabyte["plain"].middle == pytest.approx(0.005)
    assert (found.memory_bytes, found.memory_bytes_per_worker) == (700_000_000, 300_000_000)


def test_an_estimate_is_proportional_to_the_text(results: Path) -> None:
    found = measured(results)
    each = estimate(Corpus(name="a corpus", tokens=9e9), found)
    assert each.text_bytes == pytest.approx(36e9)
    assert each.pass_core_hours.middle == pytest.approx(36_000 * 0.032 / 3600)
    assert each.core_hours.highest == pytest.approx(36_000 * (0.036 + 0.01) / 3600)
    assert each.disk_bytes == pytest.approx(
        {"annotations/url": 36e9 / 2000 * 10, "tokens": 9e9 * 4.0, "packed/plain": 9e9 * 5.0}
    )
    assert each.partitions == pytest.approx(36e9 / 2**26)
    assert each.files == pytest.approx(each.partitions * 6)
    assert each.requests["nothing_to_do"] == pytest.approx(each.partitions * 2)
    double = estimate(Corpus(name="twice", tokens=18e9), found)
    assert double.core_hours.middle == pytest.approx(2 * each.core_hours.middle)
    assert double.state_bytes == pytest.approx(2 * each.state_bytes)


def test_the_page_has_the_numbers_of_other_results(results: Path) -> None:
    text = page(results)
    assert "| **annotate and tokenize**, one pass | 3.6 (3.1–4.0) | 533 (467–600) |" in text
    assert "| `packed/plain` | 5.00 bytes a token | 500 GB | 75 TB |" in text
    assert "5.5 GB with 16 workers" in text
    assert "measured on: Some CPU, 2 cores" in text
