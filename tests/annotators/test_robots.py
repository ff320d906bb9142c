"""The `robots` annotator: which documents it allows, the files that it reads, and what it refuses."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.annotators.base import Annotator, AnnotatorError
from colophon.annotators.robots import AGENTS, RobotsConfig

pytest.importorskip("protego")

FILES: dict[str, str | None] = {
    "open.org": "User-agent: *\nDisallow:\n",
    "closed.org": "User-agent: *\nDisallow: /\n",
    "some.org": "User-agent: GPTBot\nUser-agent: CCBot\nDisallow: /\n\nUser-agent: *\nAllow: /\n",
    "paths.org": "user-agent: *\ndisallow: /private/\nallow: /private/open$\ndisallow: /*.pdf$\n",
    "www.twin.org": "User-agent: *\nDisallow: /a\n",
    "site.co.uk": "User-agent: GPTBot\nDisallow: /\n",
    "none.org": None,
    "html.org": "<!doctype html><p>Not found</p>",
    "empty.org": "",
    "xn--mnchen-3ya.de": "User-agent: *\nDisallow: /\n",
    "many.org": "user-agent: x\n" * 2000 + "disallow: /\n" * 2000,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("robots") / "robots.parquet"
    pq.write_table(pa.table({"domain": list(FILES), "robots_txt": list(FILES.values())}), path)
    return path


def build(path: Path, **keys: Any) -> Annotator:
    return RobotsConfig.model_validate({"files": str(path), **keys}).build("robots")


def found(annotator: Annotator, *urls: str | None) -> list[tuple[Any, Any, Any]]:
    rows = annotator.annotate(pa.record_batch({"url": pa.array(urls, pa.string())}))
    return list(zip(*(column.to_pylist() for column in rows.columns), strict=True))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://open.org/a", (True, None, "found")),
        ("https://closed.org/a", (False, ", ".join(AGENTS), "found")),
        ("https://some.org/a", (False, "CCBot, CCBot/2.0, CCBot/1.0, GPTBot", "found")),
        ("https://paths.org/private/x", (False, ", ".join(AGENTS), "found")),
        ("https://paths.org/private/open", (True, None, "found")),
        ("https://paths.org/private/opened", (False, ", ".join(AGENTS), "found")),
        ("https://paths.org/a.pdf", (False, ", ".join(AGENTS), "found")),
        ("https://paths.org/a.pdf?x", (True, None, "found")),
        ("https://twin.org/a", (False, ", ".join(AGENTS), "found")),
        ("https://www.open.org:8080/a", (True, None, "found")),
        ("https://blog.open.org/a", (True, None, "missing")),
        ("https://none.org/", (True, None, "missing")),
        ("https://html.org/", (True, None, "found")),
        ("https://empty.org/", (True, None, "found")),
        ("https://many.org/", (True, None, "unreadable")),
        ("https://münchen.de/", (False, ", ".join(AGENTS), "found")),
        ("https://unknown.org/", (True, None, "missing")),
        ("mailto:a@closed.org", (None, None, None)),
        ("", (None, None, None)),
        (None, (None, None, None)),
    ],
)
def test_the_files_of_sites_are_applied_to_urls(table: Path, url: str | None, expected: tuple[Any, ...]) -> None:
    assert found(build(table), url) == [expected]


def test_the_file_of_the_registered_domain_counts_if_asked_for(table: Path) -> None:
    url = "https://blog.site.co.uk/a"
    assert found(build(table), url) == [(True, None, "missing")]
    assert found(build(table, registered_domain=True), url) == [(False, "GPTBot", "found")]


def test_agents_are_a_setting(table: Path) -> None:
    assert found(build(table, agents=["Googlebot"]), "https://some.org/") == [(True, None, "found")]
    assert found(build(table, agents=["*", "gptbot"]), "https://some.org/") == [(False, "gptbot", "found")]
    for agents in ([], [" "], ["a,b"]):
        with pytest.raises(ValueError, match="agent"):
            build(table, agents=agents)


def test_tables_and_folders_hold_the_same(table: Path, tmp_path: Path) -> None:
    urls = [f"https://{host}/a" for host in FILES]
    expected = found(build(table), *urls)
    lines = [json.dumps({"site": f"https://{host}/", "body": text}) for host, text in FILES.items()]
    (tmp_path / "robots.jsonl").write_text("\n".join(lines))
    named = {"host_column": "site", "text_column": "body"}
    assert found(build(tmp_path / "robots.jsonl", **named), *urls) == expected
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in range(0, len(lines), 4):
        (parts / f"{number}.jsonl").write_text("\n".join(lines[number : number + 4]))
    assert found(build(parts, **named), *urls) == expected
    folder = tmp_path / "folder"
    folder.mkdir()
    for host, text in FILES.items():
        if text is not None:
            (folder / f"{host}.txt").write_text(text)
    assert found(build(folder), *urls) == expected


def test_bytes_that_are_not_utf8_are_unreadable_and_the_last_of_two_files_counts(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.org.txt").write_bytes(b"user-agent: *\ndisallow: /\xff")
    (folder / "b.org.txt").write_bytes(b"\xef\xbb\xbfuser-agent: *\ndisallow: /")
    (folder / "c.org.txt").write_bytes(b"user-agent: *\ndisallow: /x\n" + b"#" * 600_000 + b"\ndisallow: /\n")
    urls = ["http://a.org/", "http://b.org/", "http://c.org/", "http://c.org/x"]
    assert [row[::2] for row in found(build(folder), *urls)] == [
        (True, "unreadable"),
        (False, "found"),
        (True, "found"),
        (False, "found"),
    ]
    texts = ["user-agent: *\ndisallow: /", "user-agent: *\nallow: /"]
    pq.write_table(pa.table({"domain": ["A.org", "a.org."], "robots_txt": texts}), tmp_path / "two.parquet")
    assert found(build(tmp_path / "two.parquet"), "http://a.org/") == [(True, None, "found")]


def test_a_site_is_parsed_once_and_the_number_of_rules_in_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from colophon.annotators.lists import robots_files

    parses: list[str] = []
    parse = robots_files.Protego.parse
    monkeypatch.setattr(robots_files, "_CACHED_RULES", 1000)
    monkeypatch.setattr(robots_files.Protego, "parse", lambda text: parses.append(text) or parse(text))
    texts = ["user-agent: *\n" + "disallow: /x\n" * 200] * 12
    hosts = [f"h{number}.org" for number in range(12)]
    pq.write_table(pa.table({"domain": hosts, "robots_txt": texts}), tmp_path / "r.parquet")
    annotator = build(tmp_path / "r.parquet")
    found(annotator, *["http://h0.org/a", "http://h1.org/a"] * 50)
    assert len(parses) == 2
    found(annotator, *[f"http://{host}/" for host in hosts])
    assert len(annotator._files._parsed) == 2  # type: ignore[attr-defined]  # 402 rules each
    found(annotator, "http://h0.org/a")
    assert len(parses) == 13


def test_an_edited_file_has_a_different_fingerprint_and_ends_a_run_that_began_before(tmp_path: Path) -> None:
    path = tmp_path / "robots.jsonl"
    path.write_text(json.dumps({"domain": "a.org", "robots_txt": "user-agent: *\ndisallow: /"}))
    before = build(path)
    known = before.fingerprint
    unpickled = pickle.loads(pickle.dumps(before))
    assert found(unpickled, "http://a.org/")[0][0] is False
    path.write_text(json.dumps({"domain": "a.org", "robots_txt": "user-agent: *\nallow: /"}))
    assert build(path).fingerprint != known
    with pytest.raises(AnnotatorError, match=r"annotators\.robots\.files: .*robots\.jsonl has changed since"):
        before.load()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "no such file or folder"),
        ("a.parquet", b"PAR1", "cannot be read: ArrowInvalid"),
        ("a.jsonl", b'{"domain": " "}\n{"robots_txt": ""}', "no row has a host"),
        ("a.jsonl", b'{"host": "a.org"}', "no column 'domain'; columns: host"),
        ("a.jsonl", b'\n{"domain": "a.org", "robots": ""}\n', "no column 'robots_txt'; columns: domain, robots"),
        ("a.jsonl", b"{", "cannot be read: "),
        ("a.txt", b"x", None),
        ("a b.txt", b"x", "expected a table, or a file named HOST.txt"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, name: str, content: bytes | None, message: str | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    if message is None:
        build(tmp_path / name).load()
        return
    with pytest.raises(AnnotatorError, match=message) as failed:
        build(tmp_path / name).load()
    assert str(failed.value).startswith("annotators.robots.files: ")
    assert "\n" not in str(failed.value)


def test_a_missing_library_is_named_with_its_extra(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "protego", None)
    with pytest.raises(AnnotatorError) as failed:
        build(table)
    assert str(failed.value) == "annotators.robots needs the package protego: pip install 'colophon[robots]'"
