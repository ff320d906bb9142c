"""The crawl year of a document, from the name of its dump, and its two-year slice as in TiMoE (arXiv 2508.08827)."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import Annotator, AnnotatorConfig
from colophon.annotators.columns import string_column

_CODE_VERSION = 1

# The first number of exactly four digits that can be a year of the web.
_YEAR = r"(?s)^(?:.*?[^0-9])??(?P<year>(?:19[89]|20[0-9])[0-9])(?:[^0-9].*)?$"

FIRST_YEAR = 2013
"""The year in which slice 0 begins."""


class CrawlConfig(AnnotatorConfig):
    """Reads the year of a crawl from `dump`. It has no settings.

    Example:

        [annotators.crawl]
    """

    type_name: ClassVar[str] = "crawl"

    def build(self, name: str) -> CrawlAnnotator:
        """The annotator; `name` changes nothing in its output."""
        return CrawlAnnotator(name)


class CrawlAnnotator(Annotator):
    """Writes `crawl_year` (2022 for `CC-MAIN-2022-21`) and `crawl_slice` from `dump`, both int16.

    The year is the first number of exactly four digits from 1980 to 2099: 2009 for `CC-MAIN-2009-2010`, 2026 for
    `web-2026`. The slice is floor((year − 2013) / 2): 2013 and 2014 are 0, 2021 and 2022 are 4, 2011 and 2012 are −1,
    2009 and 2010 are −2. Without a year both are null.
    """

    schema = pa.schema([("crawl_year", pa.int16()), ("crawl_slice", pa.int16())])
    columns = ("dump",)

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings: dict[str, Any] = {"type": CrawlConfig.type_name, "code_version": _CODE_VERSION}

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class."""
        dumps = string_column(batch, "dump").dictionary_encode()
        years = _years(dumps.dictionary).take(dumps.indices)
        # An arithmetic shift is the floor of a division by two; Arrow's own division cuts towards zero.
        slices = pc.shift_right(pc.subtract(years, pa.scalar(FIRST_YEAR, pa.int16())), pa.scalar(1, pa.int16()))
        return pa.record_batch([years, slices], schema=self.schema)


def _years(names: pa.Array) -> pa.Array:
    (years,) = pc.extract_regex(names.cast(pa.binary()), _YEAR).flatten()
    return years.cast(pa.string()).cast(pa.int16())
