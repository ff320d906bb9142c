from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from benchmarks.classifiers.measure import _ranks
from benchmarks.classifiers.table import RESULTS, table
from benchmarks.classifiers.tasks import _split
from colophon.pipeline.classifiers.agreement import Ranks
from tests.pages import PAGES


def test_the_page_has_the_table_of_the_results() -> None:
    found = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    assert found in PAGES["speed"], f"docs/speed.md: paste `python -m benchmarks.classifiers table`:\n{found}"


def test_rank_correlations_are_paired_with_those_of_pooled() -> None:
    true = np.arange(60.0)
    expected = {"pooled": Ranks(true), "reversed": Ranks(-true)}
    found = _ranks(expected, true, seed=0)
    assert found == {
        "rank_correlation": {"pooled": [1, 1, 1], "reversed": [-1, -1, -1]},
        "rank_differences": {"reversed": [2, 2, 2]},
    }


def test_no_domain_is_in_both_parts_and_large_ones_are_trained_on() -> None:
    hosts = ["large.org"] * 30 + [f"www.site{number}.org" for number in range(40) for _ in range(2)]
    urls = [f"https://{host}/{number}" for number, host in enumerate(hosts)]
    pages = pa.table({"text": hosts, "url": urls, "topic": ["a", "b"] * 55})
    first, second = _split(pages, "topic", 0), _split(pages, "topic", 1)
    for task in (first, second):
        train, test = set(task.texts.to_pylist()), set(task.test_texts.to_pylist())
        assert not train & test
        assert "large.org" in train
        assert 0.25 <= len(task.test_texts) / len(hosts) < 0.3
    assert set(first.test_texts.to_pylist()) != set(second.test_texts.to_pylist())
