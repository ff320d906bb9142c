"""Odd directories: the same rule for disks and stores, each file once, and nothing left out without a record."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.search.find import find_files
from colophon.pipeline.inputs.search.found import Search
from colophon.pipeline.recipe.schema import InputSection
from tests.pipeline.project import quarantine, run, write_documents
from tests.pipeline.servers import s3_environment, s3_server

TREE = [
    "a.parquet",
    "b.jsonl.xz",
    "c.csv.zstd",
    "d.feather",
    "e.warc.wet.gz",
    "notes.md",
    "more.md",
    "README",
    "_SUCCESS",
    ".a.parquet.crc",
    "a.parquet.crc",
    "dataset_info.json",
    "f.avro",
    "g.jsonl.lz4",
    "h.tar.gz",
    "[x].jsonl",
    "deep/er/i.jsonl",
    "deep/_temporary/0/j.parquet",
    "spark.parquet/part-0.snappy.parquet",
    "spark.parquet/_SUCCESS",
    "spark.parquet/x/part-1.parquet",
    "table/_delta_log/0.json",
    "table/year=2020/k.parquet",
    ".git/objects/l.json",
]
EVERYTHING = {
    "files": [
        *("[x].jsonl", "a.parquet", "b.jsonl.xz", "c.csv.zstd", "d.feather", "deep/er/i.jsonl", "e.warc.wet.gz"),
        *("spark.parquet/part-0.snappy.parquet", "spark.parquet/x/part-1.parquet", "table/year=2020/k.parquet"),
    ],
    "left aside": {
        "hidden directory": 3,
        "hidden file": 3,
        "no suffix": 1,
        "side file": 2,
        "unknown suffix .md": 2,
    },
    "quarantined": ["f.avro", "g.jsonl.lz4", "h.tar.gz"],
}
CASES = {
    "": EVERYTHING,
    "/": EVERYTHING,
    "/**": EVERYTHING,
    "/*": EVERYTHING,
    "/[x].jsonl": {"files": ["[x].jsonl"]},
    "/[a-c].*": {"files": ["a.parquet", "b.jsonl.xz", "c.csv.zstd"], "left aside": {"side file": 1}},
    "/*.parquet": {
        "files": ["a.parquet", "spark.parquet/part-0.snappy.parquet", "spark.parquet/x/part-1.parquet"],
        "left aside": {"hidden file": 1},
    },
    "/**/*.parquet": {
        "files": [
            *("a.parquet", "spark.parquet/part-0.snappy.parquet", "spark.parquet/x/part-1.parquet"),
            "table/year=2020/k.parquet",
        ],
        "left aside": {"hidden directory": 3, "hidden file": 1},
    },
    "/deep/_temporary": {"files": ["deep/_temporary/0/j.parquet"]},
    "/*/_t*/*/*.parquet": {"files": ["deep/_temporary/0/j.parquet"], "left aside": {"hidden directory": 1}},
    "/*/year=*": {"files": ["table/year=2020/k.parquet"], "left aside": {"hidden directory": 1}},
    "/table/_delta_log/0.json": {"files": ["table/_delta_log/0.json"]},
    "/**/dataset_*.json": {"files": [], "left aside": {"hidden directory": 3, "side file": 1}},
    "/**/dataset_info.json": {"files": ["dataset_info.json"], "left aside": {"hidden directory": 3}},
}


@pytest.fixture(params=["local", "file", "memory", "s3"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The tree on one kind of file system; gives its path."""
    if request.param in ("local", "file"):
        for name in TREE:
            touch(tmp_path / "odd" / name)
        yield f"{'file://' if request.param == 'file' else ''}{tmp_path}/odd"
    elif request.param == "memory":
        filesystem = fsspec.filesystem("memory")
        for name in TREE:
            filesystem.pipe_file(f"/odd/{name}", b"")
        yield "memory://odd"
        filesystem.rm("/odd", recursive=True)
    else:
        with s3_server() as server, s3_environment(server):
            filesystem = fsspec.filesystem("s3")
            filesystem.mkdir("odd")
            for name in [*TREE, "deep/"]:  # an empty object, which some tools put in the place of a directory
                filesystem.pipe_file(f"odd/{name}", b"")
            filesystem.invalidate_cache()
            yield "s3://odd"


def touch(path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()


def find(*paths: str | Path, **settings: object) -> Search:
    return find_files(InputSection(paths=[str(path) for path in paths], **settings))


def sources(found: Search) -> list[str]:
    return [file.source for file in found.files]


def reasons(found: Search) -> dict[str, str]:
    return {entry.source: entry.reason for entry in found.quarantine}


def left_aside(found: Search) -> dict[str, int]:
    return {one.kind: one.count for one in found.left_aside}


def test_one_rule_for_every_file_system(tree: str) -> None:
    for path, expected in CASES.items():
        if not expected["files"]:
            with pytest.raises(UsageError, match=r"Left aside: hidden directory: 3 .*; side file: 1"):
                find(tree + path)
            continue
        found = find(tree + path)
        assert [file.place.rpartition("odd/")[2] for file in found.files] == expected["files"], path
        assert left_aside(found) == expected.get("left aside", {}), path
        assert [entry.source.rpartition("/")[2] for entry in found.quarantine] == expected.get("quarantined", []), path


def test_a_file_has_one_place_and_one_name_for_every_spelling(tree: str) -> None:
    spellings = [tree, f"{tree}/", f"{tree}/a.parquet", f"{tree}/*", f"{tree}/**/*.parquet", f"{tree}/[a]*.parquet"]
    expected = find(tree)
    for spelling in spellings:
        places = {file.place for file in find(spelling).files}
        assert places <= {file.place for file in expected.files}
    assert [file.place for file in find(*spellings).files] == [file.place for file in expected.files]
    assert left_aside(find(*spellings)) == left_aside(expected)


def test_a_declared_format_takes_what_is_not_hidden(tree: str) -> None:
    found = find(tree, format="jsonl")
    assert {file.format for file in found.files} == {"jsonl"}
    assert left_aside(found) == {"hidden directory": 3, "hidden file": 3, "side file": 2}
    assert len(found.files) == len(TREE) - 3 - 3 - 2 - len(found.quarantine)
    assert [entry.source.rpartition("/")[2] for entry in found.quarantine] == ["g.jsonl.lz4", "h.tar.gz"]


# Links


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_links_lead_to_each_file_once(here: Path) -> None:
    for name in ("data/b/2.jsonl", "data/c/3.jsonl", "elsewhere/4.jsonl"):
        touch(name)
    for link, target in {
        "data/0.jsonl": "c/3.jsonl",
        "data/a": "b",
        "data/b/up": "..",
        "data/up": "../data",
        "data/z": "../elsewhere",
        "other": "data",
        "data/z.jsonl": "../elsewhere/4.jsonl",
    }.items():
        Path(link).symlink_to(target)
    expected = ["data/b/2.jsonl", "data/c/3.jsonl", "data/z/4.jsonl"]
    for paths in (["data"], ["data/**/*.jsonl"], ["data", "other", here / "data", f"file://{here}/other/*"]):
        assert sources(find(*paths)) == expected
    assert sources(find("other")) == [name.replace("data", "other") for name in expected]
    assert sources(find("data/up/b/*.jsonl")) == ["data/up/b/2.jsonl"]
    assert {file.place for file in find("other").files} == {file.place for file in find("data").files}


def test_links_that_lead_nowhere_are_quarantined(here: Path) -> None:
    touch("data/a.jsonl")
    for link, target in {
        "data/gone.parquet": "../blobs/1",
        "data/shard": "/no/such/directory",
        "data/loop.jsonl": "loop.jsonl",
        "data/notes.md": "../gone",
        "data/.hidden": "../gone",
    }.items():
        Path(link).symlink_to(target)
    found = find("data")
    assert sources(found) == ["data/a.jsonl"]
    assert reasons(found) == {
        "data/gone.parquet": "a link whose target is missing: ../blobs/1",
        "data/loop.jsonl": "a link that cannot be followed: Too many levels of symbolic links",
        "data/shard": "a link whose target is missing: /no/such/directory",
    }
    assert left_aside(found) == {"hidden file": 1, "unknown suffix .md": 1}
    assert set(reasons(find("data/*.parquet"))) == {"data/gone.parquet"}
    assert set(reasons(find("data/**/*.jsonl"))) == {"data/loop.jsonl", "data/shard"}
    for path in ("data/gone.parquet", "data/shard", "data/loop.jsonl"):
        with pytest.raises(UsageError, match=rf"input.paths: {path}: a link "):
            find(path)


def test_a_link_that_leads_nowhere_may_have_led_to_a_directory(here: Path) -> None:
    touch("crawls/now/a.jsonl")
    for link in ("CC-MAIN-2024.10", "pages.parquet", "notes.md"):
        Path("crawls", link).symlink_to("../gone")
    missing = "a link whose target is missing: ../gone"
    for glob in ("crawls/*/*.jsonl", "crawls/**/*.jsonl", "crawls"):
        assert sources(find(glob)) == ["crawls/now/a.jsonl"]
        assert reasons(find(glob))["crawls/CC-MAIN-2024.10"] == missing
    found = find("crawls/*/*.jsonl")
    assert reasons(found)["crawls/pages.parquet"] == missing
    assert left_aside(found) == {"link whose target is missing": 1}
    with pytest.raises(
        UsageError, match=r"crawls/pages.parquet/\*.jsonl: crawls/pages.parquet is a link whose target is"
    ):
        find("crawls/pages.parquet/*.jsonl")


# Special files, permissions, names


def test_special_files_are_never_opened(here: Path) -> None:
    touch("data/a.jsonl")
    os.mkfifo("data/fifo.jsonl")
    os.mkfifo("data/fifo")
    Path("data/link.jsonl").symlink_to("fifo.jsonl")
    Path("data/zero.csv").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("data/socket.parquet")
        found = find("data")
        assert [p.source for p in plan_inputs(InputSection(paths=["data"]), needs=()).partitions] == ["data/a.jsonl"]
    assert reasons(found) == {
        "data/fifo.jsonl": "a FIFO, not a file",
        "data/link.jsonl": "a FIFO, not a file",
        "data/socket.parquet": "a socket, not a file",
        "data/zero.csv": "a device, not a file",
    }
    assert left_aside(found) == {"no suffix": 1}
    with pytest.raises(UsageError, match=r"input.paths: data/fifo: a FIFO, not a file"):
        find("data/fifo", format="jsonl")


_AS_SOMEBODY_ELSE = """
import os, sys
from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.search.find import find_files
from colophon.pipeline.recipe.schema import InputSection
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
for path in sys.argv[1:]:
    try:
        found = find_files(InputSection(paths=[path]))
        print([file.source for file in found.files], [(entry.source, entry.reason) for entry in found.quarantine])
    except UsageError as error:
        print(error)
"""


def test_what_must_not_be_read_is_quarantined() -> None:
    with tempfile.TemporaryDirectory() as name:  # the parents of `tmp_path` are closed to other users
        folder = Path(name)
        for path in ("data/a.jsonl", "data/secret.jsonl", "data/closed/b.jsonl"):
            touch(folder / path)
        folder.chmod(0o755)
        (folder / "data/secret.jsonl").chmod(0)
        (folder / "data/closed").chmod(0)
        command = [sys.executable, "-c", _AS_SOMEBODY_ELSE, "data", "data/secret.jsonl", "data/closed"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        (folder / "data/closed").chmod(0o700)
    searched, file, directory = done.stdout.splitlines()
    assert searched == (
        "['data/a.jsonl'] [('data/closed', 'Permission denied'), ('data/secret.jsonl', 'Permission denied')]"
    )
    assert file == "input.paths: data/secret.jsonl: Permission denied"
    assert directory == "input.paths: data/closed: Permission denied"


def test_names_that_are_not_utf8_are_quarantined_with_an_escaped_name(project: Path) -> None:
    write_documents(Path("data/sub/good.parquet"), range(3))
    bad = os.fsencode("data/sub/caf") + b"\xe9"
    for path in (bad + b".parquet", bad + b".md"):
        Path(os.fsdecode(path)).touch()
    Path(os.fsdecode(bad)).mkdir()
    touch(os.fsdecode(bad + b"/inside.parquet"))
    Path("data/sub/line\nend\x1b[31m.parquet").touch()
    called = run("--set", "input.paths=data")
    assert called.code == 3
    assert {entry.source: entry.reason for entry in quarantine() if "caf" in entry.source} == {
        r"data/sub/caf\xe9": "its name is not UTF-8; rename it",
        r"data/sub/caf\xe9.parquet": "its name is not UTF-8; rename it",
    }
    assert r"left aside: unknown suffix .md: 1 (data/sub/caf\xe9.md)" in called.out
    assert r"quarantined: data/sub/line\nend\x1b[31m.parquet: Parquet file size is 0 bytes" in called.out
    assert "\x1b" not in called.out


def test_many_kinds_are_summed(here: Path) -> None:
    touch("data/a.jsonl")
    for number in range(30):
        touch(f"data/b.x{number:02}")
    found = find("data").left_aside
    assert len(found) == 21
    assert sum(one.count for one in found) == 30
    assert (found[-1].kind, found[-1].count, len(found[-1].examples)) == ("other kinds", 10, 3)
