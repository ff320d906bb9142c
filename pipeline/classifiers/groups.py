"""Groups of documents of one source: all of a group are taught from, or all are held out."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.url import UrlConfig


def registered_domains(urls: pa.Array) -> pa.Array:
    """The registered domain of each URL, else its host, else the URL itself: string; null for a null."""
    annotator = UrlConfig().build("url")
    batch = pa.record_batch({column: urls if column == "url" else pa.nulls(len(urls)) for column in annotator.columns})
    parts = annotator.annotate(batch)
    return pc.coalesce(parts.column("url_registered_domain"), parts.column("url_host"), urls.cast(pa.string()))
