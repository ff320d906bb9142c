"""WARC and WET files: records read are documents, records counted by kind, and records reported; none is lost."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warcio.bufferedreaders import ChunkedDataReader

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.inputs.warc.payloads import _without_chunks
from colophon.pipeline.recipe.schema import InputSection
from tests.pipeline.inputs.reading import NEEDS
from tests.pipeline.inputs.test_readers import rows_of
from tests.pipeline.project import manifest, quarantine, run

Headers = Sequence[tuple[str, str]]
MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
CODED, TYPE = "Content-Encoding", "WARC-Identified-Payload-Type"
CYRILLIC = f"<html>{'Съешь ещё этих мягких французских булок, да выпей чаю. ' * 5}</html>"
CHUNKS = b"6\r\n<html>\r\n7\r\n</html>\r\n0\r\n\r\n"
HTML = b"<!DOCTYPE html><html><head><title>page %d</title></head><body>words and more words</body></html>"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def record(
    kind: str = "response",
    payload: bytes = HTML % 0,
    *,
    status: str = "200 OK",
    http: Headers = (),
    uri: str = "http://e.example/a",
    warc: Headers = (),
    media_type: str = "text/plain",
) -> bytes:
    """One record as crawlers write it."""
    is_http = kind in ("response", "request", "revisit")
    block = payload
    if is_http:
        first = "GET / HTTP/1.1" if kind == "request" else f"HTTP/1.1 {status}"
        block = lines(first, ("Content-Type", "text/html"), *http) + payload
    head = lines(
        "WARC/1.0",
        ("WARC-Type", kind),
        ("WARC-Record-ID", f"<urn:uuid:{uri}>"),
        ("WARC-Target-URI", uri),
        ("WARC-Date", "2024-01-02T03:04:05Z"),
        *warc,
        ("Content-Type", "application/http" if is_http else media_type),
        ("Content-Length", str(len(block))),
    )
    return head + block + b"\r\n\r\n"


def lines(first: str, *headers: tuple[str, str]) -> bytes:
    return "".join(f"{line}\r\n" for line in (first, *map(": ".join, headers), "")).encode()


@cache
def pages(count: int = 5) -> tuple[bytes, ...]:
    return tuple(record(payload=HTML % n, uri=f"http://e.example/{n}") for n in range(count))


def reader(content: bytes, name: str = "a.warc", **settings: int) -> PartitionReader:
    Path(name).write_bytes(content)
    (partition,) = plan_inputs(InputSection(paths=[name], **settings), needs=NEEDS).partitions
    return PartitionReader(partition, NEEDS, stage="test")


def texts(found: PartitionReader) -> list[str]:
    return [row["text"] for row in rows_of(found)]


def test_pages_are_documents_with_id_and_url() -> None:
    rows = rows_of(reader(b"".join(pages())))
    assert [row["text"] for row in rows] == [(HTML % n).decode() for n in range(5)]
    assert [row["url"] for row in rows] == [f"http://e.example/{n}" for n in range(5)]
    assert len({row["id"] for row in rows}) == 5
    assert all(row["id"].startswith("<urn:uuid:") for row in rows)


OTHERS = {
    "request": record("request", b""),
    "metadata": record("metadata", b"a: b"),
    "warcinfo": record("warcinfo", b"software: x", media_type="application/warc-fields"),
    "revisit": record("revisit", b""),
    "continuation": record("continuation", b"more"),
    "other": record("brand-new", b"more"),
    "resource": record("resource", b"log", uri="urn:X-wget:log"),
    "resource_of_other_media_type": record("resource", b"\x89PNG", media_type="image/png"),
    "conversion_of_other_media_type": record("conversion", b"%PDF", media_type="application/pdf"),
    "response_of_other_media_type": record(payload=b"%PDF-1.4 binary"),
    "response_of_other_protocol": record(payload=b"e.example. 1 IN A 1", uri="dns:e.example"),
    "response_with_status_4xx": record(status="404 Not Found"),
    "response_with_status_3xx": record(status="301 Moved"),
    "response_without_status": record(status="teapot"),
}


def test_records_that_are_no_documents_are_counted_by_kind() -> None:
    content = b"".join(page + other for page, other in zip(pages(len(OTHERS)), OTHERS.values(), strict=True))
    found = reader(content)
    assert len(texts(found)) == len(OTHERS)
    assert found.other_records == dict.fromkeys(OTHERS, 1)
    assert found.problems == []
    assert found.counts(["text"]) == {f"records_{kind}": 1 for kind in sorted(OTHERS)}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (record("conversion", "größe".encode()), "größe"),
        (record("conversion", b"#include <stdio.h>\nint main() {}"), "#include <stdio.h>\nint main() {}"),
        (record("resource", b"plain text", media_type="text/plain; charset=utf-8"), "plain text"),
        (record("resource", HTML % 1, media_type="text/html"), (HTML % 1).decode()),
        (record(payload=CYRILLIC.encode("cp1251")), CYRILLIC),
        (record(payload=b"x" + HTML % 1, warc=[(TYPE, "text/html")]), "x" + (HTML % 1).decode()),
        (record(payload=gzip.compress(HTML % 2), http=[(CODED, "gzip")]), (HTML % 2).decode()),
        (record(payload=zlib.compress(HTML % 2), http=[(CODED, "deflate")]), (HTML % 2).decode()),
        (record(payload=zlib.compress(HTML % 2)[2:-4], http=[(CODED, "deflate")]), (HTML % 2).decode()),
        (record(payload=HTML % 3, http=[(CODED, "br")]), (HTML % 3).decode()),
        (record(payload=CHUNKS, http=[("Transfer-Encoding", "chunked")]), "<html></html>"),
    ],
)
def test_the_text_of_a_payload(content: bytes, text: str) -> None:
    found = reader(content)
    assert texts(found) == [text]
    assert (found.problems, found.other_records) == ([], {})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (record(payload=b"\x0b\x02\x80", http=[(CODED, "br")]), "content encoding 'br'; can be read: gzip"),
        (record(payload=gzip.compress(HTML)[:40], http=[(CODED, "gzip")]), "content encoding gzip: the payload is cut"),
        (record(payload=gzip.compress(bytes(70 << 20)), http=[(CODED, "gzip")]), "a payload of more than 64,000,000 "),
        (record(payload=HTML % 1, http=[("X", "y" * (1 << 20))]), "headers of more than 1,048,576 bytes"),
        (record(payload=HTML % 1, http=[("X", "y")] * (1 << 18)), "headers of more than 1,048,576 bytes"),
    ],
)
def test_a_document_that_cannot_be_decoded_is_reported_and_the_next_is_read(content: bytes, reason: str) -> None:
    found = reader(pages()[0] + content + pages()[1])
    assert len(texts(found)) == 2
    (entry,) = found.problems
    assert (entry.line, entry.count, entry.rows) == (2, 1, 1)
    assert entry.reason.startswith(reason)


LARGE = b"<html>" + b"x" * (3 << 20)
CHUNKED = ("Transfer-Encoding", "chunked")
LARGE_PAYLOADS = {
    "plain": record(payload=LARGE),
    "gzip": record(payload=gzip.compress(LARGE), http=[(CODED, "gzip")]),
    "deflate": record(payload=zlib.compress(LARGE), http=[(CODED, "deflate")]),
    "one chunk": record(payload=b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE), http=[CHUNKED]),
    "a chunk said to be of 2 GiB": record(payload=b"80000000\r\n" + LARGE, http=[CHUNKED]),
    "chunks": record(payload=b"8\r\n<html>xx\r\n" * (1 << 17), http=[CHUNKED]),
    "conversion": record("conversion", LARGE),
    "larger as UTF-8": record(payload=CYRILLIC.encode("cp1251") + "я".encode("cp1251") * 99_000),
}


@pytest.mark.parametrize("name", LARGE_PAYLOADS)
def test_a_payload_above_the_limit_is_named_and_takes_little_memory(name: str) -> None:
    found = reader(LARGE_PAYLOADS[name] + pages()[0], max_document_bytes=100_000)
    tracemalloc.start()
    assert len(texts(found)) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (entry,) = found.problems
    assert (entry.line, entry.rows) == (1, 1)
    assert entry.reason.endswith("max_document_bytes = 100,000. Raise input.max_document_bytes to read it")
    assert peak < 16 << 20


@pytest.mark.parametrize("size", [1, 7, 1 << 20, (1 << 20) + 1])
def test_chunks_of_any_size_are_joined(size: int) -> None:
    payload = (HTML % 1) + b"x" * (size if size > 7 else 0)
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    chunked = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in parts)
    assert texts(reader(record(payload=chunked + b"0\r\n\r\n", http=[CHUNKED]))) == [payload.decode()]


@pytest.mark.parametrize("payload", [b"<html>no chunks", b"6\r\n<html>!!7\r\nrest", b"6\r\n<ht"])
def test_what_is_not_chunked_is_taken_as_warcio_takes_it(payload: bytes) -> None:
    expected = ChunkedDataReader(io.BytesIO(payload)).read()
    assert _without_chunks(io.BytesIO(payload), 1000) == expected


@pytest.mark.parametrize("start", [b"WARC/1.0\r\nX: ", b"WARC/1.0"])
def test_headers_of_any_length_take_little_memory(start: bytes) -> None:
    found = reader(pages()[0] + start + bytes(8 << 20))
    tracemalloc.start()
    assert len(texts(found)) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (entry,) = found.problems
    assert "headers of more than 1,048,576 bytes" in entry.reason
    assert peak < 32 << 20


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": zstandard.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_members_of_a_record_each_or_one_for_all_are_read(suffix: str) -> None:
    compress = COMPRESSIONS[suffix]
    for content in (b"".join(map(compress, pages())), compress(b"".join(pages()))):
        found = reader(content, f"a.warc{suffix}")
        assert len(texts(found)) == 5
        assert found.problems == []


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@MANY
@given(data=st.data())
def test_a_file_cut_anywhere_keeps_the_records_before_and_names_the_rest(suffix: str, data: st.DataObject) -> None:
    members = [COMPRESSIONS[suffix](page) for page in pages()]
    ends = [sum(map(len, members[:n])) for n in range(6)]
    at = data.draw(st.one_of(st.integers(1, ends[-1]), st.sampled_from(ends[1:]).map(lambda end: end - 1)))
    found = reader(b"".join(members)[:at], f"a.warc{suffix}")
    num_whole = max(n for n, end in enumerate(ends) if end <= at)
    try:
        num_read = len(texts(found))
    except InputError as error:
        assert num_whole == 0
        assert str(error).startswith("record 1 at byte 0: ")
        return
    if ends[num_whole] == at:
        assert (num_read, found.problems) == (num_whole, [])
        return
    # Of a compressed record only its checksum may be cut.
    assert num_read in ((num_whole, num_whole + 1) if suffix else (num_whole,))
    (entry,) = found.problems
    assert (entry.line, entry.rows) == (num_read + 1, None)
    assert entry.reason.startswith(f"record {num_read + 1} at byte ")


def with_length(page: bytes, change: int) -> bytes:
    start = page.index(b"Content-Length: ") + len(b"Content-Length: ")
    end = page.index(b"\r\n", start)
    return page[:start] + b"%d" % (int(page[start:end]) + change) + page[end:]


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (pages()[2] + b"garbage\r\n", "expected WARC/1.0, found b'garbage"),
        (pages()[2][:-4], "no line ends after its content, but b'WARC/1.0"),
        (pages()[2][:-2], "no line ends after its content, but b'WARC/1.0"),
        (with_length(pages()[2], -7), "no line ends after its content, but b'</html>"),
        (with_length(pages()[2], 2), "no line ends after its content"),
        (with_length(pages()[2], 4), "no line ends after its content"),
        (with_length(pages()[2], 50), "no line ends after its content"),
        (with_length(pages()[2], 10**15), "the file ends 999,999,"),
        (pages()[2].replace(b"Content-Length", b"Content-Lengths", 1), "its Content-Length is None, not a number"),
        (with_length(pages()[2], -(10**6)), "its Content-Length is '-"),
        (pages()[2].replace(b"WARC/1.0", b"WARC/9.9", 1), ""),
    ],
)
def test_damage_inside_a_file_is_named_by_record_and_byte(damaged: bytes, reason: str) -> None:
    found = reader(b"".join(pages()[:2]) + damaged + b"".join(pages()[3:]))
    num_read = len(texts(found))
    assert num_read == (3 if damaged.startswith(pages()[2]) else 2)
    (entry,) = found.problems
    offset = sum(map(len, pages()[:num_read]))
    assert entry.line == num_read + 1
    assert entry.reason.startswith(f"record {num_read + 1} at byte {offset:,}: ")
    assert reason in entry.reason
    assert entry.reason.endswith("; nothing after it was read")


def test_line_ends_of_one_byte_and_more_blank_lines_are_read() -> None:
    assert len(texts(reader(b"\r\n\r\n".join(pages())))) == 5
    wet = b"WARC/1.0\nWARC-Type: conversion\nContent-Type: text/plain\nContent-Length: 5\n\nhello\n\n"
    assert texts(reader(wet * 3)) == ["hello"] * 3


def test_headers_that_lack_and_odd_urls() -> None:
    odd = record(uri="<http://e.example/a b>").replace(b"WARC-Record-ID", b"X-Record-ID")
    (row,) = rows_of(reader(odd))
    assert row["url"] == "http://e.example/a%20b"
    assert row["id"].endswith("/0")
    nothing = pages()[0].replace(b"WARC-Target-URI", b"X-Target-URI").replace(b"WARC-Type", b"X-Type", 1)
    found = reader(nothing + pages()[1])
    assert len(texts(found)) == 1
    assert found.other_records == {"other": 1}


def test_a_run_over_a_cut_file_exits_with_3_and_shows_what_is_no_document(project: Path) -> None:
    text = Path("recipe.toml").read_text().replace("[annotators.crawl]\n[annotators.edu_score]\n", "")
    text = text.replace('template = "{quality_fine} {crawl_year}"', 'template = "{url_host}"')
    Path("recipe.toml").write_text(text)
    whole = b"".join([OTHERS["warcinfo"], *(OTHERS["request"] + page for page in pages())])
    Path("data/a.warc.gz").write_bytes(gzip.compress(whole)[:-20])
    called = run("--set", 'input.paths=["data/a.warc.gz"]')
    assert (called.code, called.err) == (3, "")
    (entry,) = quarantine()
    assert (entry.source, entry.stage) == ("data/a.warc.gz", "annotate, tokenize")
    assert entry.line is not None
    assert "Compressed file ended before" in entry.reason
    (tokens,) = manifest().outputs["tokens"].records
    assert tokens.counts["records_warcinfo"] == 1
    assert tokens.rows + tokens.counts["records_request"] + 1 == entry.line - 1
    assert f"records that are no documents: {tokens.counts['records_request']} request, 1 warcinfo" in called.out


@MANY
@given(data=st.data())
def test_any_damage_gives_rows_counts_and_reports_only(data: st.DataObject) -> None:
    content = bytearray(b"".join([*pages(), *OTHERS.values(), record("conversion", b"text")]))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "arbitrary"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if kind == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[at : at + data.draw(st.integers(1, 900))]
    elif kind == "insert":
        content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
    else:
        content[:] = b"WARC/1.0\r\n" + data.draw(st.binary(max_size=60))
    found = reader(bytes(content))
    with mock.patch("sys.stderr", new_callable=io.StringIO) as err:
        try:
            num_rows = len(rows_of(found))
        except InputError as error:
            assert "\n" not in str(error)
            return
    assert err.getvalue() == ""
    damaged = [entry for entry in found.problems if entry.rows is None]
    reported = sum(entry.rows or 0 for entry in found.problems)
    read = num_rows + found.other_records.total() + reported
    if damaged:
        assert damaged[0].line == read + 1
    elif kind in ("flip", "insert"):
        assert read == 20
