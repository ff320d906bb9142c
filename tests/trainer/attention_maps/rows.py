"""Addresses, their annotations, and layouts for tests of attention."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from colophon.annotators.base import annotator_types
from colophon.shards.layouts import parse_layout
from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.inference.contexts import TrainedLayout

URLS = [
    "https://www.example.org/a/b?q=1#f",
    "http://example.org",
    "https://bücher.münchen.example:8443/größe/über?q=日本#τέλος",
    "https://東京.example.jp/🙂🙂",
    "ftp://user:pass@[2001:db8::1]:21/x",
    "HTTPS://EXAMPLE.org?only=query",
    "https://example.org//the//the",
    "  https://spaces.example.org/around \n",
    "git+ssh://the.in/",
    "https://a.b/" + "the/" * 60,
]


def layout_with(tokenizer: Tokenizer, **fields: Any) -> TrainedLayout:
    """A model's layout with these settings."""
    layout = parse_layout(fields, where="test")
    return TrainedLayout(name="x", layout=layout, sequence_length=512, special=tokenizer.special)


def url_columns(urls: list[str | None]) -> dict[str, pa.Array]:
    """The url annotator's columns."""
    annotator = annotator_types()["url"]().build("url")
    annotator.load()
    batch = annotator.annotate(pa.record_batch({"url": pa.array(urls, pa.string())}))
    return {name: batch.column(name) for name in batch.schema.names}
