"""The benchmark of duplicates on small data: edits have about the similarity asked for, recall is the formula's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.duplicates import edited, format_recalls, jaccard, main, recalls, shingles_of


def text(seed: int, size: int = 400) -> str:
    return " ".join(f"w{number}" for number in np.random.default_rng(seed).integers(0, 5000, size))


@pytest.mark.parametrize("similarity", [0.7, 0.9])
def test_edits_leave_the_similarity_that_is_asked_for(similarity: float) -> None:
    rng = np.random.default_rng(0)
    found = [jaccard(shingles_of(each), shingles_of(edited(each, similarity, rng))) for each in map(text, range(60))]
    assert abs(np.mean(found) - similarity) < 0.03


def test_recall_among_copies_and_among_pairs_of_the_texts() -> None:
    texts = [text(seed) for seed in range(30)]
    texts.append(" ".join([*texts[0].split()[:-22], "other"]))
    of_copies, natural = recalls(texts, copies=150, seed=1)
    for row in of_copies:
        low, high = row.interval
        assert row.pairs > 10
        assert low - 0.05 < row.expected < high + 0.05
    assert [(row.similarity, row.pairs, row.found) for row in natural] == [(0.9, 1, 1)] or natural == []
    assert format_recalls(of_copies).count("\n") == 1 + len(of_copies)


@pytest.mark.slow
def test_both_tables_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"text": [text(seed) for seed in range(12)]}), tmp_path / "a.parquet")
    main(["--texts", str(tmp_path / "*.parquet"), "--copies", "30", "--sizes", "1000,2000", "--rounds", "1"])
    printed = capsys.readouterr().out
    assert "| 0.9 |" in printed
    assert "| 2,000 |" in printed
