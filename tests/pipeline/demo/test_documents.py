"""The documents of a distribution: docstrings, descriptions, licences, and files that cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

from colophon.pipeline.demo.corpus import write_demo_corpus
from colophon.pipeline.demo.prose import MAX_DOCUMENT_CHARS
from tests.pipeline.demo.site_packages import build, install, module, prose, row_at, rows


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


def test_repeated_docstrings_and_repeated_texts_are_dropped(site: Path, tmp_path: Path) -> None:
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


def test_broken_packages_and_files_are_excluded_and_counted(site: Path, tmp_path: Path) -> None:
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
