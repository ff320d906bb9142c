from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colophon.shards.templates import render
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from colophon.trainer.attention_maps.parts import URL_PARTS, labelled_rows, parts_of_tokens, required_columns
from colophon.trainer.errors import TrainerError
from tests.trainer.attention_maps.rows import URLS, layout_with, url_columns

SHARED = Path(__file__).parents[3].parent / "shared"
WITHOUT_PARTS = ["data:text/plain,hello", "mailto:a@b.example", "example.org/the", "//host/x", "file:///etc/hosts"]


def brute_parts(tokenizer: Tokenizer, ids: list[int], parts: list[tuple[str, str]]) -> list[str]:
    """The part of each token's first byte, by the bytes of the tokens."""
    owner = [name for name, text in parts for _ in text.encode()]
    found, at = [], 0
    for token_id in ids:
        found.append(owner[at])
        at += len(tokenizer._backend.token_bytes(token_id))
    assert at <= len(owner)
    return found


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode_batch(pa.array([text]))[0].as_py()
    return ids


@pytest.mark.parametrize("url", URLS)
def test_parts_of_unusual_urls_are_those_of_the_tokens_first_bytes(tokenizer: Tokenizer, url: str) -> None:
    columns = url_columns([url])
    prefix, domain, suffix = (columns[name][0].as_py() for name in URL_PARTS)
    start = url.index(prefix)
    middle, end = start + len(prefix), start + len(prefix) + len(domain)
    pieces = list(zip(URL_PARTS, (url[:middle], url[middle:end], url[end:]), strict=True))
    rows = labelled_rows(
        layout_with(tokenizer, position="prepend", template="{url}"), columns, num_documents=1, tokenizer=tokenizer
    )
    ids = encode(tokenizer, url)[:128]
    assert rows.prefixes[0].tolist() == [tokenizer.special.bos, tokenizer.special.boc, *ids, tokenizer.special.eoc]
    names = [rows.part_names[part] for part in rows.parts[0]]
    assert names == ["bos", "wrapper", *brute_parts(tokenizer, ids, pieces), "wrapper"]
    assert len(ids) == 128 or suffix == "" or "url_suffix" in names


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=80, deadline=None)
def test_parts_of_any_text_are_those_of_the_tokens_first_bytes(
    tokenizer: Tokenizer, one: str, two: str, three: str
) -> None:
    spans = [(name, text) for name, text in (("a", one), ("b", two), ("c", three)) if text]
    ids = encode(tokenizer, one + two + three)
    if "\ufffd" not in one + two + three:  # a cut character also decodes to it
        expected = brute_parts(tokenizer, ids, spans)
        assert parts_of_tokens(np.array(ids), spans, tokenizer=tokenizer) == expected
        for cut in range(1, len(ids)):
            assert parts_of_tokens(np.array(ids[:cut]), spans, tokenizer=tokenizer) == expected[:cut]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not beside the checkout")
def test_parts_with_a_real_vocabulary() -> None:
    real = load_tokenizer(TokenizerConfig(path=str(SHARED / "data/vocab/gpt2.tiktoken"), pattern="gpt2"))
    spans = list(zip(URL_PARTS, ("https://", "www.reddit.com", "/r/science/comments/größe"), strict=True))
    ids = encode(real, "".join(text for _, text in spans))
    found = parts_of_tokens(np.array(ids), spans, tokenizer=real)
    assert found == brute_parts(real, ids, spans)
    assert found[0] == "url_prefix"  # `https`, then `://`
    assert found[:2] == ["url_prefix", "url_prefix"]


def test_ids_of_a_different_text_have_no_parts(tokenizer: Tokenizer) -> None:
    assert parts_of_tokens(np.array(encode(tokenizer, "other")), [("a", "the")], tokenizer=tokenizer) is None


def test_a_template_of_several_fields_and_documents_without_metadata(tokenizer: Tokenizer) -> None:
    urls = [URLS[0], None, *WITHOUT_PARTS[:2], None]
    columns = url_columns(urls)
    columns["topic"] = pa.array(["ä", None, None, "in", "über"])
    layout = layout_with(
        tokenizer, position="prepend", template="{topic} | {url}", max_metadata_tokens=100, dropout=1.0
    )
    assert required_columns(layout) == ["topic", "url", *URL_PARTS]
    rows = labelled_rows(layout, columns, num_documents=5, tokenizer=tokenizer)
    assert rows.part_names == ["bos", "wrapper", "topic", "template", *URL_PARTS, "url", "text"]
    assert rows.kept.tolist() == [0, 2, 3, 4]
    assert rows.excluded == {"without_metadata": 1, "changed_by_the_tokenizer": 0}
    rendered = render("{topic} | {url}", columns, num_rows=5)
    for number, row in zip(rows.kept, rows.prefixes, strict=True):
        assert row[2:-1].tolist() == encode(tokenizer, rendered[int(number)].as_py())
    whole = layout.metadata(columns, num_documents=5, encoder=tokenizer)
    for number, row in zip(rows.kept, rows.prefixes, strict=True):
        assert row.tolist() == layout.prefix(whole[number])  # as packing writes it, none dropped
    last = [rows.part_names[part] for part in rows.parts[3]]
    assert set(last[2:-1]) == {"topic", "template"}
    assert "url" in [rows.part_names[part] for part in rows.parts[1]]


def test_formatted_fields_have_the_text_that_packing_writes(tokenizer: Tokenizer) -> None:
    columns = url_columns([URLS[0], None])
    columns |= {"score": pa.array([3.25, None]), "date": pa.array([0, None], pa.timestamp("us", "UTC"))}
    template = "{date:%Y} {score:.1f} {url:.12} the {url}"
    layout = layout_with(tokenizer, position="prepend", template=template)
    rows = labelled_rows(layout, columns, num_documents=2, tokenizer=tokenizer)
    (metadata, _) = layout.metadata(columns, num_documents=2, encoder=tokenizer)
    assert rows.kept.tolist() == [0]
    assert rows.prefixes[0].tolist() == layout.prefix(metadata)
    assert {rows.part_names[part] for part in rows.parts[0]} >= {"date", "score", "url", "url_domain"}
    assert render(template, columns, num_rows=2).to_pylist() == [f"1970 3.2 https://www. the {URLS[0]}", None]


def test_layouts_with_nothing_before_the_text_are_refused(tokenizer: Tokenizer) -> None:
    for settings_ in ({"position": "plain"}, {"position": "append", "template": "{url}"}):
        with pytest.raises(TrainerError, match="has nothing before the text to attend to"):
            required_columns(layout_with(tokenizer, **settings_))
