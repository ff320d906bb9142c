"""The `url` annotator: parts that join to the URL, hosts, registered domains, and no exception for any URL."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.annotators.base import AnnotatorError
from colophon.annotators.url import UrlConfig, _host


def annotate(urls: list[str | None], **settings: bool) -> list[dict[str, str | None]]:
    batch = pa.record_batch({"url": pa.array(urls, pa.string())})
    return UrlConfig(**settings).build("url").annotate(batch).to_pylist()


# url, prefix, domain, suffix, host, registered domain
TABLE: list[tuple[str | None, ...]] = [
    (
        "https://www.bbc.co.uk/news?a=1#top",
        "https://",
        "www.bbc.co.uk",
        "/news?a=1#top",
        "www.bbc.co.uk",
        "bbc.co.uk",
    ),
    ("http://localhost", "http://", "localhost", "", "localhost", None),
    ("HTTP://EXAMPLE.ORG/UP", "HTTP://", "EXAMPLE.ORG", "/UP", "example.org", "example.org"),
    ("http://example.org?q=/", "http://", "example.org", "?q=/", "example.org", "example.org"),
    (
        "https://u:p%40@example.org:8443/x",
        "https://",
        "u:p%40@example.org:8443",
        "/x",
        "example.org",
        "example.org",
    ),
    ("http://example.org:99999/", "http://", "example.org:99999", "/", "example.org", "example.org"),
    ("http://example.org:abc/", "http://", "example.org:abc", "/", None, None),
    ("http://[2001:DB8::1]:80/p", "http://", "[2001:DB8::1]:80", "/p", "2001:db8::1", None),
    ("http://[2001:db8::1/p", "http://", "[2001:db8::1", "/p", None, None),
    ("http://[::1%25eth0]/", "http://", "[::1%25eth0]", "/", None, None),
    ("http://192.168.0.1/", "http://", "192.168.0.1", "/", "192.168.0.1", None),
    ("https://münchen.de/ß", "https://", "münchen.de", "/ß", "xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
    ("https://пример.рф/", "https://", "пример.рф", "/", "xn--e1afmkfd.xn--p1ai", "xn--e1afmkfd.xn--p1ai"),
    ("https://example.org./x", "https://", "example.org.", "/x", "example.org", "example.org"),
    ("https://example.org../x", "https://", "example.org..", "/x", None, None),
    ("https://foo.github.io/x", "https://", "foo.github.io", "/x", "foo.github.io", "github.io"),
    ("https://exa_mple.org/", "https://", "exa_mple.org", "/", "exa_mple.org", "exa_mple.org"),
    ("https://co.uk/", "https://", "co.uk", "/", "co.uk", None),
    ("https://a.org/new\nline", "https://", "a.org", "/new\nline", "a.org", "a.org"),
    (" https://a.org/x\t", "https://", "a.org", "/x", "a.org", "a.org"),
    ("s3://bucket/key", "s3://", "bucket", "/key", "bucket", None),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: repr(row[0]))
def test_parts_of_a_url(row: tuple[str | None, ...]) -> None:
    assert tuple(annotate([row[0]])[0].values()) == row


@pytest.mark.parametrize(
    "url",
    [
        "", "   ", "data:text/html,<h1>", "javascript:alert(1)", "mailto:a@b.org", "//cdn.example.org/x",
        "example.org", "/relative", "http://", "https:///path", "https://?q=1", "file:///etc/hosts",
        "https:\\\\a.org\\b", "http://a b/", "http://a\x00.org/", "1http://a.org/", None,
    ],
)  # fmt: skip
def test_a_url_without_authority_has_no_parts(url: str | None) -> None:
    (row,) = annotate([url])
    assert row.pop("url") == url
    assert set(row.values()) == {None}


def test_private_suffixes() -> None:
    assert annotate(["https://a.foo.github.io/"], private_suffixes=True)[0]["url_registered_domain"] == "foo.github.io"
    settings = [UrlConfig(private_suffixes=private).build("url").fingerprint for private in (False, True)]
    assert settings[0] != settings[1]


@given(st.text(), st.text(alphabet=st.characters(codec="utf-8")), st.text())
def test_parts_join_to_the_url_for_any_text(scheme: str, domain: str, path: str) -> None:
    urls = [text.encode("utf-8", "replace").decode() for text in (scheme, f"https://{domain}{path}", f"x://{path}")]
    for row in annotate(urls):
        parts = [row["url_prefix"], row["url_domain"], row["url_suffix"]]
        if None in parts:
            assert set(parts) == {None}
            assert row["url_host"] is None
        else:
            assert "".join(map(str, parts)) == str(row["url"]).strip("".join(map(chr, range(0x21))))


def test_bytes_that_are_not_utf8_have_no_parts() -> None:
    values = pa.array([b"http://\xff\xfe/", b"http://a.org/b"]).cast(pa.binary())
    urls = pa.Array.from_buffers(pa.string(), 2, values.buffers())
    rows = UrlConfig().build("url").annotate(pa.record_batch([urls], ["url"]))
    assert rows.column("url_host").to_pylist() == [None, "a.org"]


def test_the_error_names_a_column_that_is_not_text() -> None:
    with pytest.raises(AnnotatorError, match="column 'url' has type int64"):
        UrlConfig().build("url").annotate(pa.record_batch({"url": [1]}))
    with pytest.raises(AnnotatorError, match="expected one column 'url'; columns: text"):
        UrlConfig().build("url").annotate(pa.record_batch({"text": ["x"]}))


@pytest.mark.shared
def test_unusual_urls(shared_data: Path) -> None:
    (batch,) = pq.read_table(shared_data / "hostile/weird_urls.parquet").combine_chunks().to_batches()
    rows = UrlConfig().build("url").annotate(batch).to_pylist()
    assert len(rows) == 87
    assert rows[0]["url_host"] == rows[1]["url_host"] == "xn--mnchen-3ya.de"
    for row in rows:
        if row["url_prefix"] is not None:
            assert row["url_prefix"] + row["url_domain"] + row["url_suffix"] == row["url"].strip()


def test_hosts_of_any_length_leave_little_behind() -> None:
    """The caches hold hosts, not authorities, and none that is too long to be one."""
    _host.cache_clear()
    long = [f"http://{'u' * 5000}{n}@{'a' * 300}{n}.example:80/" for n in range(50)]
    short = [f"http://{'u' * 5000}{n}@a.example/" for n in range(50)]
    assert {row["url_host"] for row in annotate([*long, *short])} == {None, "a.example"}
    assert _host.cache_info().currsize == 1
