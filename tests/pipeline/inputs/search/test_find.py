"""The search for input files: paths, directories and globs, formats, and paths without data."""

from __future__ import annotations

from pathlib import Path

import pytest

from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.search.find import find_files
from colophon.pipeline.inputs.search.found import InputFile
from colophon.pipeline.recipe.schema import InputSection
from tests.pipeline.project import write_documents


def find(*paths: str | Path, **settings: object) -> list[InputFile]:
    return list(find_files(InputSection(paths=[str(path) for path in paths], **settings)).files)


def sources(*paths: str | Path) -> list[str]:
    return [file.source for file in find(*paths)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_globs_directories_and_files_are_found_in_the_order_of_the_recipe(here: Path) -> None:
    for name in ("b/2.parquet", "b/1.parquet", "a/deep/er/3.parquet", "c.parquet"):
        write_documents(Path(name), range(3))
    assert sources("c.parquet", "b/*.parquet", "a") == [
        "c.parquet",
        "b/1.parquet",
        "b/2.parquet",
        "a/deep/er/3.parquet",
    ]
    assert sources("**/*.parquet") == ["a/deep/er/3.parquet", "b/1.parquet", "b/2.parquet", "c.parquet"]
    assert sources("b/[2-9].parquet") == ["b/2.parquet"]


def test_a_file_that_is_given_twice_is_read_once(here: Path) -> None:
    write_documents(Path("data/1.parquet"), range(3))
    assert sources("data/1.parquet", "data", "data/*.parquet", "./data/1.parquet", here / "data/1.parquet") == [
        "data/1.parquet"
    ]


def test_a_search_skips_hidden_files_and_unknown_suffixes(here: Path) -> None:
    write_documents(Path("data/1.parquet"), range(3))
    for name in (".hidden.parquet", "_SUCCESS.parquet", "notes.md", "README", "1.parquet.crc"):
        Path("data", name).write_text("not data")
    assert sources("data") == ["data/1.parquet"]
    assert sources("data/*") == ["data/1.parquet"]


def test_a_hidden_file_is_read_when_given_by_its_path(here: Path) -> None:
    write_documents(Path("data/.hidden.parquet"), range(3))
    assert sources("data/.hidden.parquet") == ["data/.hidden.parquet"]


@pytest.mark.parametrize(
    "name",
    [
        "with space & ümlaut é.parquet",
        "[brackets].parquet",
        "#%20?.parquet",
        "日本.parquet",
        "line\nend \x1b[31m.parquet",
    ],
)
def test_names_of_all_kinds_are_read(here: Path, name: str) -> None:
    write_documents(Path("nested dir ü", name), range(3))
    for path in (f"nested dir ü/{name}", "nested dir ü"):
        assert sources(path) == [f"nested dir ü/{name}"]
        (partition,) = plan_inputs(InputSection(paths=[path]), needs=()).partitions
        assert all(c.isascii() and (c.isalnum() or c in "-_") for c in partition.name)


def test_a_path_without_data_files_is_a_usage_error_that_names_it(here: Path) -> None:
    Path("empty").mkdir()
    for path in ("empty", "none.parquet", "none/*.parquet", "*.parquet"):
        with pytest.raises(UsageError) as error:
            find(path)
        assert str(error.value) == f"input.paths: {path}: no such file, or no data file in it"


@pytest.mark.parametrize("path", ["texts", "texts/*", "texts/*.md"])
def test_the_error_for_a_path_without_data_names_what_is_left_aside(here: Path, path: str) -> None:
    Path("texts").mkdir()
    for number in range(4):
        Path(f"texts/{number}.md").touch()
    with pytest.raises(UsageError) as error:
        find(path)
    assert str(error.value) == (
        f"input.paths: {path}: no such file, or no data file in it. "
        "Left aside: unknown suffix .md: 4 (texts/0.md, texts/1.md, texts/2.md, ...)"
    )


def test_a_file_with_an_unknown_suffix_is_a_usage_error_with_the_choices(here: Path) -> None:
    Path("stray.md").write_text('{"text": "a"}\n')
    with pytest.raises(UsageError, match=r"input.paths: stray.md: unknown suffix; available: .parquet, "):
        find("stray.md")
    (file,) = find("stray.md", format="jsonl")
    assert file.format == "jsonl"


@pytest.mark.parametrize("path", ["a.zip", "a.jsonl.lz4", "a.avro", "a.parquet.gz"])
def test_a_named_file_of_a_kind_that_is_not_read_is_a_usage_error(here: Path, path: str) -> None:
    Path(path).touch()
    with pytest.raises(UsageError, match=rf"input.paths: {path}: .* files are not read"):
        find(path)


def test_paths_that_no_file_can_have_are_usage_errors(here: Path) -> None:
    for path in ("a\0b.parquet", "~nobody-has-this-name/a.parquet", "file://elsewhere/a.parquet"):
        with pytest.raises(UsageError, match=r"input.paths: .*(null byte|home directory|elsewhere is a machine)"):
            find(path)


def test_an_unknown_protocol_is_a_usage_error() -> None:
    with pytest.raises(ValueError, match=r"the protocol 'nope' is not supported; available: abfs, "):
        find("nope://x/y")
