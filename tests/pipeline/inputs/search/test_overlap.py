"""A run's output is never its input: neither now nor after it was written."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.search.find import find_files
from colophon.pipeline.inputs.search.overlap import check_apart
from colophon.pipeline.recipe.schema import InputSection
from colophon.pipeline.runs.resolve import WRITTEN_NAMES
from tests.pipeline.project import colophon, run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("data/a.parquet", "data/sub/b.parquet", "out-of/c.parquet", "results/inputs/d.parquet"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("link").symlink_to("data/sub")
    Path("data/up").symlink_to("../results")
    Path("data/later").symlink_to("../not-yet")
    fsspec.filesystem("memory").pipe_file("/in/a.parquet", b"")
    return tmp_path


def error_of(path: str, directory: str, *, writes: tuple[str, ...] | None = WRITTEN_NAMES) -> str | None:
    search = find_files(InputSection(paths=[path]))
    try:
        check_apart(search, directory, key="output.path", writes=writes)
    except UsageError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("path", "directory"),
    [
        ("data", "data"),
        ("data", "data/out"),
        ("data", "data/_out/deep"),
        ("data", "./data/sub/../out"),
        ("data", "{here}/data/out"),
        ("{here}/data", "data/out"),
        ("file://{here}/data", "data/out"),
        ("data", "file://{here}/data/out"),
        ("data", "link/out"),
        ("link", "data/sub/out"),
        ("data/**/*.parquet", "data/out"),
        ("data/*", "data/out"),
        ("*", "out"),
        ("**", "out"),
        (".", "out"),
        ("*/*/*.parquet", "out"),
        ("data", "results"),
        ("data", "not-yet/out"),
        ("memory://in", "memory://in/out"),
        ("memory://in/**/*.parquet", "memory:///in/out"),
    ],
)
def test_an_output_inside_of_the_input_is_refused(here: Path, path: str, directory: str) -> None:
    path, directory = path.format(here=here), directory.format(here=here)
    message = error_of(path, directory)
    assert message is not None
    assert message.startswith(f"output.path: {directory} is inside of ")
    assert message.endswith(
        ", which input.paths searches: its files would become input. Choose a directory outside of it"
    )


@pytest.mark.parametrize(
    ("path", "directory"),
    [
        ("data/*.parquet", "data"),
        ("data/a.parquet", "{here}/data"),
        ("link/b.parquet", "data/sub"),
        ("results/report/e.parquet", "results"),
    ],
)
def test_an_input_where_the_output_is_written_is_refused(here: Path, path: str, directory: str) -> None:
    Path("results/report").mkdir()
    Path("results/report/e.parquet").touch()
    directory = directory.format(here=here)
    assert error_of(path, directory) == (
        f"output.path: {directory} contains the input file {path.replace('*', 'a')}. Choose a different directory"
    )


@pytest.mark.parametrize(
    ("path", "directory"),
    [
        ("data", "out"),
        ("data", "data-out"),
        ("data/*.parquet", "data/out"),
        ("*/*.parquet", "out"),
        ("data/sub", "data/out"),
        ("results/inputs/*.parquet", "results"),
        ("data", "memory://data"),
        ("memory://in", "in"),
        ("memory://in", "memory://input"),
    ],
)
def test_places_that_do_not_meet_are_not_refused(here: Path, path: str, directory: str) -> None:
    assert error_of(path, directory) is None


def test_a_directory_for_files_of_any_name(here: Path) -> None:
    """That of an export, which writes files named after the input's."""
    assert error_of("results/inputs/*.parquet", "results", writes=None) is not None
    assert error_of("*/*.parquet", "out", writes=None) is not None
    assert error_of("data/*.parquet", "data/out", writes=None) is None


def test_a_refused_run_is_one_line_and_writes_nothing(project: Path) -> None:
    for command in (["run"], ["run", "--dry-run"], ["annotate"]):
        called = colophon(*command, "recipe.toml", "--set", "input.paths=data", "--set", "output.path=data/out")
        assert called.code == 2
        assert called.line.startswith(
            "recipe.toml: output.path: data/out is inside of data, which input.paths searches"
        )
        assert not Path("data/out").exists()


def test_the_names_in_a_finished_output_are_known(finished: Path) -> None:
    Path("data/bad.parquet").touch()
    assert run().code == 3
    assert {path.name for path in Path("out").iterdir()} <= set(WRITTEN_NAMES)
