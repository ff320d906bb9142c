"""The `blocklist` annotator: what its lists match, the files that it reads, and what it refuses."""

from __future__ import annotations

import gzip
import json
import pickle
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.annotators.base import Annotator, AnnotatorConfig, AnnotatorError
from colophon.annotators.blocklist import BlocklistConfig
from colophon.annotators.contamination import ContaminationConfig
from colophon.annotators.robots import RobotsConfig


def build(**lists: dict[str, Any]) -> Annotator:
    return BlocklistConfig.model_validate({"lists": lists}).build("block")


def found(annotator: Annotator, *urls: str | None, ids: list[str | None] | None = None) -> list[tuple[Any, Any, Any]]:
    columns = {"url": pa.array(urls, pa.string())} if urls else {}
    batch = pa.record_batch({**columns, **({"id": pa.array(ids, pa.string())} if ids else {})})
    return [
        (row["block_blocked"], row["block_list"], row["block_entry"]) for row in annotator.annotate(batch).to_pylist()
    ]


DOMAINS = {"kind": "domains", "entries": ["*.Example.org.", "co.uk", "münchen.de", "1.2.3.4", "2001:db8::1"]}


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("https://example.org/", "example.org"),
        ("https://a.B.example.org:80/x", "example.org"),
        ("https://user@example.org./", "example.org"),
        ("https://notexample.org/", False),
        ("https://example.org.evil.com/", False),
        ("https://www.bbc.co.uk/", "co.uk"),
        ("https://xn--mnchen-3ya.de/", "xn--mnchen-3ya.de"),
        ("http://1.2.3.4/", "1.2.3.4"),
        ("http://[2001:db8::1]/", "2001:db8::1"),
        ("mailto:a@example.org", None),
        ("", None),
        (None, None),
    ],
)
def test_a_domain_blocks_all_hosts_below_it(url: str | None, entry: str | bool | None) -> None:
    expected = (True, "d", entry) if isinstance(entry, str) else (entry, None, None)
    assert found(build(d=DOMAINS), url) == [expected]


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("https://example.org/private/x", "example.org/private/"),
        ("http://EXAMPLE.org:8080/private/", "example.org/private/"),
        ("https://example.org/private", False),
        ("https://example.org/PRIVATE/", False),
        ("https://a.example.org/private/", False),
        ("https://whole.net", "whole.net/"),
        ("https://whole.net?q", "whole.net/"),
        ("https://whole.net.evil/", False),
        ("https://deep.net/a/b/c?d#e", "deep.net/a"),
    ],
)
def test_a_url_prefix_blocks_urls_that_begin_with_it(url: str, entry: str | bool) -> None:
    entries = ["https://example.org/private/", "whole.net", "deep.net/a/b", "deep.net/a", "deep.net/a/z"]
    expected = (True, "u", entry) if isinstance(entry, str) else (False, None, None)
    assert found(build(u={"kind": "url_prefixes", "entries": entries}), url) == [expected]


def test_hosts_and_ids_are_equal_or_not() -> None:
    annotator = build(h={"kind": "hosts", "entries": ["a.org"]}, i={"kind": "ids", "entries": ["7", "é"]})
    urls = ["https://a.org/", "https://b.a.org/", "https://x.org/", None, None]
    assert found(annotator, *urls, ids=["1", "7", None, "é", None]) == [
        (True, "h", "a.org"),
        (True, "i", "7"),
        (False, None, None),
        (True, "i", "é"),
        (None, None, None),
    ]
    assert build(i={"kind": "ids", "entries": ["7"]}).columns == ("id",)
    assert build(h={"kind": "hosts", "entries": ["7"]}).columns == ("url",)


def test_the_first_list_of_the_recipe_is_named_with_its_date() -> None:
    late = {"kind": "domains", "entries": ["org"], "date": "2025-02-28"}
    early = {"kind": "url_prefixes", "entries": ["a.org/x"], "date": "2024-01-31"}
    batch = pa.record_batch({"url": ["https://a.org/x1", "https://a.org/y"]})
    for lists, expected in (({"b": early, "a": late}, ["b", "a"]), ({"a": late, "b": early}, ["a", "a"])):
        rows = build(**lists).annotate(batch)
        assert rows.column("block_list").to_pylist() == expected
        dates = {"a": date(2025, 2, 28), "b": date(2024, 1, 31)}
        assert rows.column("block_date").to_pylist() == [dates[name] for name in expected]


def write_list(path: Path, entries: list[str | None]) -> dict[str, Any]:
    """Write a list in the format of the suffix; the keys that name it."""
    column: dict[str, Any] = {"column": "host"}
    if path.name.endswith(".parquet"):
        pq.write_table(pa.table({"n": range(len(entries)), "host": entries}), path)
    elif ".jsonl" in path.name:
        text = "".join(json.dumps({"host": entry, "more": [1]}) + "\n" for entry in entries)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    else:
        text = "# a comment\n\n" + "".join(f"  {entry}\r\n" for entry in entries if entry is not None)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
        column = {}
    return {"path": str(path), **column}


@pytest.mark.parametrize("name", ["a.txt", "a", "a.txt.gz", "a.parquet", "a.jsonl", "a.jsonl.gz"])
def test_files_of_every_format(name: str, tmp_path: Path) -> None:
    entries = [f"host{number}.org" for number in range(3000)]
    keys = write_list(tmp_path / name, [*entries, None])
    annotator = pickle.loads(pickle.dumps(build(h={"kind": "hosts", **keys})))
    annotator.load()
    assert found(annotator, "http://host2999.org/", "http://host3000.org/", "http://host0.org/") == [
        (True, "h", "host2999.org"),
        (False, None, None),
        (True, "h", "host0.org"),
    ]


def test_an_edited_list_has_a_different_fingerprint_and_ends_a_run_that_began_before(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a.org\n")
    before = build(h={"kind": "hosts", "path": str(path)})
    known = before.fingerprint
    path.write_text("b.org\n")
    after = build(h={"kind": "hosts", "path": str(path)})
    assert after.fingerprint != known
    assert found(after, "http://b.org/")[0][0] is True
    with pytest.raises(AnnotatorError, match=r"annotators\.block: a list has changed since the run began"):
        before.load()


def test_a_list_without_entries_blocks_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "comments.txt").write_text("# nothing\n")
    for name in ("empty.txt", "comments.txt"):
        assert found(build(h={"kind": "hosts", "path": str(tmp_path / name)}), "http://a.org/") == [(False, None, None)]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "hosts", "entries": ["a b"]}, "entries: entry 1 is not a host name: 'a b'"),
        ({"kind": "domains", "entries": ["a.org", "https://b.org/"]}, "entry 2 is not a host name"),
        (
            {"kind": "url_prefixes", "entries": ["/only/a/path"]},
            "entry 1 is not the beginning of a URL: '/only/a/path'",
        ),
        ({"kind": "hosts", "path": "TMP/missing.txt"}, "missing.txt: No such file"),
        ({"kind": "hosts", "path": "TMP/x.parquet"}, "x.parquet: a table needs the key `column`"),
        ({"kind": "hosts", "path": "TMP/x.parquet", "column": "hosts"}, "no column 'hosts'; columns: host"),
        ({"kind": "ids", "path": "TMP/x.jsonl", "column": "id"}, "x.jsonl: no column 'id'; columns: doc, host"),
        ({"kind": "hosts", "path": "TMP/x.txt", "column": "host"}, "x.txt: a text file has no `column`"),
        ({"kind": "hosts", "path": "TMP/broken.parquet", "column": "host"}, "broken.parquet: cannot be read: "),
        ({"kind": "hosts", "path": "TMP/bytes.txt"}, "bytes.txt: not UTF-8. Convert it"),
        ({"kind": "hosts", "path": "TMP/wide.txt"}, "wide.txt: UTF-16BE, not UTF-8. Convert it"),
    ],
)
def test_what_cannot_be_used_is_one_line(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"host": ["a.org"]}), tmp_path / "x.parquet")
    (tmp_path / "x.txt").write_text("a.org")
    (tmp_path / "x.jsonl").write_text('{"doc": "1", "host": null}\n{"doc": "2"}\n')
    (tmp_path / "broken.parquet").write_text("PAR1")
    (tmp_path / "bytes.txt").write_bytes(b"a.org\n\xff\xfe.org\n")
    (tmp_path / "wide.txt").write_bytes("a.org\n".encode("utf-16-be"))
    keys = {key: value.replace("TMP", str(tmp_path)) if key == "path" else value for key, value in keys.items()}
    with pytest.raises(AnnotatorError) as failed:
        build(h=keys).load()
    assert message in str(failed.value)
    assert str(failed.value).startswith("annotators.block.lists")
    assert "\n" not in str(failed.value)


def test_of_json_lines_not_every_line_has_the_column(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for lines in ('{"host": null}\n', '{"doc": 1}\n{"host": "a.org"}\n'):
        path.write_text(lines)
        build(h={"kind": "hosts", "path": str(path), "column": "host"}).load()


@pytest.mark.parametrize(
    "config",
    [
        BlocklistConfig.model_validate({"lists": {"a": {"kind": "ids", "path": "x.parquet", "column": "id"}}}),
        ContaminationConfig.model_validate({"benchmarks": {"a": {"path": "x.parquet", "columns": ["question"]}}}),
        RobotsConfig(files="x.parquet"),
    ],
    ids=["blocklist", "contamination", "robots"],
)
def test_a_parquet_file_without_the_column_is_refused_before_a_run(
    config: AnnotatorConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"host": ["a.org"]}), "x.parquet")
    with pytest.raises(AnnotatorError, match=r"^annotators\.x\..*x\.parquet: no column '.*'; columns: host$"):
        config.build("x")


@pytest.mark.parametrize(
    "keys",
    [
        {"kind": "hosts"},
        {"kind": "hosts", "entries": ["a"], "path": "b"},
        {"kind": "hosts", "entries": ["a"], "column": "b"},
    ],
)
def test_a_list_has_one_origin(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"exactly one of path, entries|column is for a file"):
        build(h=keys)
