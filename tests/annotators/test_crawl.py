"""The `crawl` annotator: the year in the dump's name and its two-year slice."""

from __future__ import annotations

import pyarrow as pa
import pytest

from colophon.annotators.crawl import CrawlConfig


@pytest.mark.parametrize(
    ("dump", "year"),
    [
        ("CC-MAIN-2022-21", 2022),
        ("CC-MAIN-2009-2010", 2009),
        ("CC-MAIN-2012", 2012),
        ("2013", 2013),
        ("web\n-2014", 2014),
        ("20131-x", None),
        ("build-12013", None),
        ("CC-MAIN-0021-2022", 2022),
        ("", None),
        (None, None),
    ],
)
def test_year_and_slice(dump: str | None, year: int | None) -> None:
    batch = pa.record_batch({"dump": pa.array([dump], pa.string())})
    expected = {"crawl_year": year, "crawl_slice": None if year is None else (year - 2013) // 2}
    assert CrawlConfig().build("crawl").annotate(batch).to_pylist() == [expected]


def test_slices_of_the_paper() -> None:
    batch = pa.record_batch({"dump": [f"CC-MAIN-{year}-10" for year in range(2009, 2025)]})
    slices = CrawlConfig().build("crawl").annotate(batch).column("crawl_slice").to_pylist()
    assert slices == [-2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
