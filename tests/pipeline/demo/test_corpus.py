"""The demo's corpus, from a small site-packages and, with a limit, from the real one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest

from colophon.pipeline.demo.corpus import SCHEMA, write_demo_corpus
from colophon.pipeline.demo.documents import MIN_DOCUMENT_CHARS
from colophon.pipeline.demo.prose import MAX_DOCUMENT_CHARS
from colophon.pipeline.errors import UsageError
from tests.pipeline.demo.site_packages import build, content, install, module, rows


def test_shards_have_the_columns_of_fineweb_edu_and_two_labels(site: Path, tmp_path: Path) -> None:
    corpus = build(site, tmp_path / "demo")
    assert [path.name for path in corpus.train_files] == ["train-00000.parquet", "train-00001.parquet"]
    for path in (*corpus.train_files, corpus.validation_file):
        assert pq.read_schema(path).equals(SCHEMA)
    assert SCHEMA.names[:6] == ["text", "id", "dump", "url", "date", "file_path"]
    assert SCHEMA.names[6:] == ["language", "language_score", "token_count", "score", "int_score", "topic", "quality"]
    documents = rows(corpus)
    assert len(documents) == corpus.num_documents == 12 * 7
    assert corpus.text_bytes == sum(len(str(row["text"]).encode()) for row in documents)
    for row in documents:
        assert re.fullmatch(r"<urn:uuid:[0-9a-f-]{36}>", str(row["id"]))
        assert re.search(r"-(20\d\d)-", str(row["dump"]))
        assert str(row["date"]).startswith(re.findall(r"-(20\d\d)-", str(row["dump"]))[0])
        assert row["language"] == "en"
        assert {row[name] for name in ("language_score", "token_count", "score", "int_score")} == {None}


def test_urls_and_texts_are_distinct_and_on_the_projects_own_host(site: Path, tmp_path: Path) -> None:
    documents = rows(build(site, tmp_path / "demo"))
    for name in ("url", "id", "text"):
        assert len({row[name] for row in documents}) == len(documents)
    for row in documents:
        package = re.split(r"[/-]", str(row["file_path"]))[0]
        assert urlsplit(str(row["url"])).hostname == f"{package}.example.org"


def test_the_same_environment_gives_the_same_bytes_with_any_number_of_workers(site: Path, tmp_path: Path) -> None:
    build(site, tmp_path / "one")
    build(site, tmp_path / "two", num_workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(content(tmp_path / "one")) == 2 + 1 + 4 + 1


def test_an_up_to_date_corpus_is_not_written_again(site: Path, tmp_path: Path) -> None:
    output = tmp_path / "demo"
    lines: list[str] = []
    first = build(site, output)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    second = write_demo_corpus(output, search_paths=[site], num_files=2, num_workers=1, report=lines.append)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert second.reused and not first.reused
    assert (second.topics, second.fingerprint, second.label_files) == (
        first.topics,
        first.fingerprint,
        first.label_files,
    )
    assert len(lines) == 1 and "up to date" in lines[0]


def test_a_changed_environment_or_setting_or_a_missing_file_rebuilds_the_corpus(site: Path, tmp_path: Path) -> None:
    output = tmp_path / "demo"
    first = build(site, output, num_files=3)
    fewer = build(site, output, num_files=2)
    assert not fewer.reused and fewer.fingerprint != first.fingerprint
    assert sorted(path.name for path in (output / "corpus").iterdir()) == ["train-00000.parquet", "train-00001.parquet"]
    install(site, "newer", {"newer.py": module("newer")})
    newer = build(site, output)
    assert not newer.reused and newer.num_documents == fewer.num_documents + 1
    newer.validation_file.unlink()
    assert not build(site, output).reused
    (output / "corpus.json").write_text("{ not json")
    assert not build(site, output).reused
    assert json.loads((output / "corpus.json").read_text())["num_documents"] == newer.num_documents


def test_the_date_is_the_latest_calendar_version(site: Path, tmp_path: Path) -> None:
    install(site, "certs", {}, version="2031.2.27")
    install(site, "monthly", {}, version="2031.9.0")
    row = rows(build(site, tmp_path / "demo"))[0]
    assert (row["date"], row["dump"]) == ("2031-02-27T00:00:00Z", "PYDOC-2031-09")


def test_too_little_documentation_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match=r"^too little documentation for 2 files: 0 documents in .*nothing$"):
        build(tmp_path / "nothing", tmp_path / "demo")
    with pytest.raises(UsageError, match="num_files must be at least 1, got 0"):
        build(tmp_path / "nothing", tmp_path / "demo", num_files=0)
    assert not (tmp_path / "demo").exists()


def test_the_real_environment_gives_real_documents(tmp_path: Path) -> None:
    corpus = write_demo_corpus(tmp_path / "demo", max_documents=300, num_files=2, num_workers=1)
    documents = rows(corpus)
    assert len(documents) == corpus.num_documents <= 300
    assert len(documents) > 100 and len({urlsplit(str(row["url"])).hostname for row in documents}) > 3
    for row in documents:
        assert str(row["url"]).startswith(("https://", "http://"))
        assert MIN_DOCUMENT_CHARS <= len(str(row["text"])) <= MAX_DOCUMENT_CHARS
