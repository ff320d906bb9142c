"""The demo's corpus, built from a small site-packages made here and, bounded, from the real one."""

from __future__ import annotations

import hashlib
import json
import random
import re
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest

from colophon.pipeline.demo.corpus import SCHEMA, DemoCorpus, write_demo_corpus
from colophon.pipeline.demo.documents import MIN_DOCUMENT_CHARS
from colophon.pipeline.demo.prose import MAX_DOCUMENT_CHARS
from colophon.pipeline.errors import UsageError

MATHS = "Topic :: Scientific/Engineering :: Mathematics"
WEB = "Topic :: Internet :: WWW/HTTP"
WORDS = """
the a document value reader writer returns keeps every single order that which because when then given longer
shorter window table column schema batch before after while between without result number of and or to from
"""


def prose(seed: str, *, num_sentences: int = 12) -> str:
    """Running sentences that differ with the seed."""
    source = random.Random(seed)
    sentences = [" ".join(source.choices(WORDS.split(), k=14)).capitalize() + "." for _ in range(num_sentences)]
    return textwrap.fill(" ".join(sentences), 76)


def module(seed: str) -> str:
    return f'"""{prose(seed)}"""\n\n\ndef run(a):\n    """{prose(seed + "run", num_sentences=3)}"""\n'


def parameters(seed: str) -> str:
    lines = "\n".join(f":param {seed}{number}: int >= {number}" for number in range(30))
    return f'def run(a):\n    """{lines}\n    """\n'


def install(
    root: Path,
    name: str,
    files: dict[str, str | bytes],
    *,
    version: str = "1.0",
    classifier: str | None = None,
    urls: tuple[str, ...] | None = None,
    description: str = "",
) -> Path:
    """A distribution as an installer leaves it; `urls` are Project-URL values."""
    info = root / f"{name}-{version}.dist-info"
    urls = (f"Documentation, https://{name}.example.org/docs/",) if urls is None else urls
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Project-URL: {url}" for url in urls)]
    head += [f"Classifier: {classifier}"] if classifier else []
    everything = {f"{info.name}/METADATA": "\n".join(head) + f"\n\n{description}", **files}
    for path, content in everything.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in everything))
    return info


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Twelve distributions of two topics, each with four modules of prose and two of parameters."""
    root = tmp_path / "site-packages"
    for number in range(12):
        name = f"pkg{number:02d}"
        files: dict[str, str | bytes] = {f"{name}/part{k}.py": module(f"{name}{k}") for k in range(4)}
        files |= {f"{name}/args{k}.py": parameters(f"{name}{'ab'[k]}") for k in range(2)}
        install(root, name, files, classifier=(MATHS, WEB)[number % 2], description=f"# {name}\n\n{prose(name)}\n")
    return root


def build(site: Path, output: Path, *, num_files: int = 2, num_workers: int = 1) -> DemoCorpus:
    return write_demo_corpus(output, search_paths=[site], num_files=num_files, num_workers=num_workers)


def rows(corpus: DemoCorpus) -> list[dict[str, object]]:
    return [row for path in (*corpus.train_files, corpus.validation_file) for row in pq.read_table(path).to_pylist()]


def row_at(corpus: DemoCorpus, url: str) -> dict[str, object]:
    found = [row for row in rows(corpus) if row["url"] == url]
    assert len(found) == 1, [row["url"] for row in rows(corpus)]
    return found[0]


def content(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_shards_have_the_columns_of_fineweb_edu_and_two_labels(site: Path, tmp_path: Path) -> None:
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


def test_a_module_is_a_document_of_its_docstrings_under_their_names(site: Path, tmp_path: Path) -> None:
    source = f'''"""{prose("one")}"""

class Reader:
    """{prose("two")}"""

    def __repr__(self):
        """{prose("never shown")}"""

    if True:
        async def read(self):
            """Read the whole of the file at once."""

            def inner():
                """Nobody outside can see what this does."""

def signature():
    """signature(a, b) -> int

    With a sentence below it."""

def bare():
    """bare(a: int, b: int, c: int) -> dict[str, int]"""
'''
    install(site, "whole", {"whole/__init__.py": source})
    row = row_at(build(site, tmp_path / "demo"), "https://whole.example.org/docs/#whole")
    read = "Read the whole of the file at once."
    parts = ["whole", prose("one"), "Reader", prose("two"), "Reader.read", read]
    parts += ["signature", "signature(a, b) -> int\n\nWith a sentence below it."]
    assert row["text"] == "\n\n".join(parts)
    assert row["file_path"] == "whole/__init__.py"


def test_a_long_module_is_cut_between_docstrings_and_each_part_has_its_anchor(site: Path, tmp_path: Path) -> None:
    functions = "".join(f'def f{k}():\n    """{prose(f"long{k}", num_sentences=40)}"""\n' for k in range(9))
    install(site, "long", {"long.py": functions})
    texts = {
        row["url"]: str(row["text"]) for row in rows(build(site, tmp_path / "demo")) if row["file_path"] == "long.py"
    }
    assert list(texts) and all(len(text) <= MAX_DOCUMENT_CHARS for text in texts.values())
    assert len(texts) > 2 and "https://long.example.org/docs/#long" in texts
    names = [name for text in texts.values() for name in re.findall(r"^f\d$", text, re.MULTILINE)]
    assert sorted(names) == [f"f{k}" for k in range(9)]
    for url, text in texts.items():
        anchor = str(url).partition("#")[2]
        assert anchor == "long" or text.startswith(f"long\n\n{anchor.removeprefix('long.')}\n\n")


def test_repeated_docstrings_and_repeated_texts_are_left_out(site: Path, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        f"many/part{k}.py": f'{module(f"many{k}")}\ndef close():\n    """Close the file and forget it."""\n'
        for k in range(4)
    }
    install(site, "many", {**files, "many/copy.py": ""})
    install(site, "twin", {"twin.py": f'"""{prose("pkg00")}"""'}, description="# pkg00\n\n" + prose("pkg00"))
    documents = rows(build(site, tmp_path / "demo"))
    assert not any("Close the file" in str(row["text"]) for row in documents)
    assert sum(prose("many1") in str(row["text"]) for row in documents) == 1
    assert [row["file_path"] for row in documents if str(row["text"]).startswith("# pkg00")] == [
        "pkg00-1.0.dist-info/METADATA"
    ]


def test_a_description_is_plain_and_its_changelog_is_a_document_of_its_own(site: Path, tmp_path: Path) -> None:
    description = f"""\
# Tool [![Build](https://ci.example.org/b.svg)](https://ci.example.org)

<p align="center"><img src="logo.png"></p>

See [the guide](https://tool.example.org/guide). {prose("tool")}

## Changelog

### 1.0 (2020-01-01)

{prose("changes")}
"""
    licence = prose("licence")
    urls = ("Home, https://tool.example.org", "Source Code, https://github.com/example/tool#readme")
    files: dict[str, str | bytes] = {"tool-1.0.dist-info/licenses/LICENSE.txt": licence}
    install(site, "tool", files, urls=urls, description=description)
    corpus = build(site, tmp_path / "demo")
    readme = row_at(corpus, "https://github.com/example/tool")
    assert str(readme["text"]).startswith("# Tool\n\nSee the guide. ")
    assert not re.search(r"[<\[]|Changelog", str(readme["text"])) and readme["quality"] == "high"
    changelog = row_at(corpus, "https://github.com/example/tool#changelog")
    assert str(changelog["text"]).startswith("## Changelog\n\n### 1.0") and changelog["quality"] == "low"
    notice = row_at(corpus, "https://github.com/example/tool#LICENSE.txt")
    assert notice["text"] == licence and notice["quality"] == "low"


def test_labels_come_from_classifiers_and_from_the_share_of_prose(site: Path, tmp_path: Path) -> None:
    install(site, "general", {"general.py": module("general")}, classifier="Topic :: Utilities")
    corpus = build(site, tmp_path / "demo")
    documents = {str(row["file_path"]): row for row in rows(corpus)}
    assert documents["pkg00/part0.py"]["topic"] == "Mathematics & Physics"
    assert documents["pkg01/part0.py"]["topic"] == "Web & Networking"
    assert documents["general.py"]["topic"] is None
    assert documents["pkg00/part0.py"]["quality"] == "high"
    assert documents["pkg00/args0.py"]["quality"] == "low"
    assert corpus.topics == {"Mathematics & Physics": 42, "Web & Networking": 42, "unlabelled": 1}
    assert corpus.qualities == {"high": 61, "low": 24}


@pytest.mark.parametrize("kind", ["topic", "quality"])
def test_labels_are_split_by_package_with_every_label_on_both_sides(kind: str, site: Path, tmp_path: Path) -> None:
    corpus = build(site, tmp_path / "demo")
    package_of = {row["text"]: re.split(r"[/-]", str(row["file_path"]))[0] for row in rows(corpus)}
    validation = set(pq.read_table(corpus.validation_file)["text"].to_pylist())
    train = pq.read_table(corpus.label_files[f"{kind}_train"])
    test = pq.read_table(corpus.label_files[f"{kind}_test"])
    assert train.column_names == test.column_names == ["text", "label"]
    assert set(train["label"].to_pylist()) == set(test["label"].to_pylist())
    packages = [{package_of[text] for text in part["text"].to_pylist()} for part in (train, test)]
    assert packages[0] and packages[1] and not packages[0] & packages[1]
    assert not validation & {*train["text"].to_pylist(), *test["text"].to_pylist()}
    assert 0.1 < test.num_rows / (train.num_rows + test.num_rows) < 0.3


def test_a_label_that_one_package_has_alone_is_split_by_document(site: Path, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"lonely/part{k}.py": module(f"lonely{k}") for k in range(10)}
    install(site, "lonely", files, classifier="Topic :: Security")
    corpus = build(site, tmp_path / "demo")
    for part in ("train", "test"):
        assert "Systems & Security" in pq.read_table(corpus.label_files[f"topic_{part}"])["label"].to_pylist()


def test_the_same_environment_gives_the_same_bytes_with_any_number_of_workers(site: Path, tmp_path: Path) -> None:
    build(site, tmp_path / "one")
    build(site, tmp_path / "two", num_workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(content(tmp_path / "one")) == 2 + 1 + 4 + 1


def test_nothing_is_written_where_the_corpus_is_up_to_date(site: Path, tmp_path: Path) -> None:
    output = tmp_path / "demo"
    said: list[str] = []
    first = build(site, output)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    second = write_demo_corpus(output, search_paths=[site], num_files=2, num_workers=1, report=said.append)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert second.reused and not first.reused
    assert (second.topics, second.fingerprint, second.label_files) == (
        first.topics,
        first.fingerprint,
        first.label_files,
    )
    assert len(said) == 1 and "up to date" in said[0]


def test_another_environment_or_setting_or_a_missing_file_builds_again(site: Path, tmp_path: Path) -> None:
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


def test_broken_packages_and_files_are_left_out_and_counted(site: Path, tmp_path: Path) -> None:
    whole = build(site, tmp_path / "whole")
    install(
        site,
        "broken",
        {
            "broken/syntax.py": '"""Text."""\ndef f(:\n',
            "broken/nul.py": b'"""Text."""\nx = "\x00"\n',
            "broken/latin.py": '"""Caf\xe9."""\n'.encode("latin-1"),
            "broken/deep.py": '"""Text."""\nx = ' + "(" * 5000 + ")" * 5000,
            "broken/README.md": "caf\xe9".encode("latin-1"),
            "broken/fine.py": f'r"""\\d \\ud800 {prose("fine")}"""',
            "broken/escape.py": f'"""\\d \\ud800 \x07{prose("escape")}"""',
            "broken/tests/test_it.py": module("test"),
            "broken/not-a-module.py": module("dash"),
        },
    )
    with (site / "broken-1.0.dist-info" / "RECORD").open("a") as record:
        record.write('../../bin/tool,,\n/etc/hosts.py,,\ngone.py,,\n"open quote,,\n')
    (site / "empty-1.0.dist-info").mkdir()
    install(site, "unnamed", {"unnamed.py": module("unnamed")}).joinpath("METADATA").write_bytes(b"Version: 1\n\n\xff")
    install(site, "nowhere", {"nowhere.py": module("nowhere")}, urls=("Homepage, UNKNOWN", "Docs, http://[bad"))
    local = install(site, "local", {"local.py": module("local")})
    (local / "direct_url.json").write_text("{}")
    corpus = build(site, tmp_path / "demo")
    assert corpus.num_unreadable_files == 5
    assert corpus.num_documents == whole.num_documents + 2
    text = str(row_at(corpus, "https://broken.example.org/docs/#broken.escape")["text"])
    assert text.startswith("broken.escape\n\n\\d \ufffd ") and "\x07" not in text


def test_huge_and_non_utf8_metadata_is_bounded(site: Path, tmp_path: Path) -> None:
    info = install(site, "huge", {}, description="\n\n".join(prose(f"huge{k}") for k in range(1500)))
    (info / "METADATA").write_bytes((info / "METADATA").read_bytes().replace(b"\n\n", b"\n\n\xe9t\xe9 ", 1))
    text = str(row_at(build(site, tmp_path / "demo"), "https://huge.example.org/docs/")["text"])
    assert MAX_DOCUMENT_CHARS / 2 < len(text) <= MAX_DOCUMENT_CHARS
    assert text.startswith("\ufffdt\ufffd ") and text.endswith(".")


def test_the_standard_library_has_the_addresses_of_its_reference(site: Path, tmp_path: Path) -> None:
    lib = tmp_path / "python3.x"
    for path in ("json/__init__.py", "json/decoder.py", "http/client.py", "xml/etree/ElementTree.py", "ntpath.py"):
        (lib / path).parent.mkdir(parents=True, exist_ok=True)
        (lib / path).write_text(module(path))
    (lib / "not_of_python.py").write_text(module("other"))
    corpus = write_demo_corpus(tmp_path / "demo", search_paths=[site], stdlib_path=lib, num_files=1, num_workers=1)
    branch = re.compile(r"3\.1\d")
    found = {branch.sub("3.x", str(row["url"])): row for row in rows(corpus) if "python" in str(row["url"])}
    assert sorted(found) == [
        "https://docs.python.org/3.x/library/http.client.html",
        "https://docs.python.org/3.x/library/json.html",
        "https://docs.python.org/3.x/library/xml.etree.elementtree.html",
        "https://github.com/python/cpython/blob/3.x/Lib/json/decoder.py",
        "https://github.com/python/cpython/blob/3.x/Lib/ntpath.py",
    ]
    assert found["https://docs.python.org/3.x/library/json.html"]["file_path"] == "python3.x/json/__init__.py"


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
