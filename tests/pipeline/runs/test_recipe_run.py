"""`colophon.run`: what the command does, as a call."""

from __future__ import annotations

from pathlib import Path

import pytest

import colophon
from colophon.pipeline.errors import UsageError
from tests.pipeline.small_run import run_recipe, write_small_run


def test_it_writes_the_files_that_the_command_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_small_run(tmp_path / "project")
    recipe = colophon.load_recipe(str(path), overrides=["ray.num_workers=2"])
    result = colophon.run(recipe)
    assert result.exit_code == 0
    made = {r.path: r.sha256 for output in result.manifest.outputs.values() for r in output.records}
    assert made == run_recipe(path, output=tmp_path / "expected")
    assert colophon.open(recipe.output.path).manifest == result.manifest
    assert (tmp_path / "project/out/report/run.json").is_file()
    assert capsys.readouterr().out == "", "a call prints nothing"


def test_stages_are_chosen_and_nothing_is_done_twice(tmp_path: Path) -> None:
    path = write_small_run(tmp_path / "project", num_files=1)
    first = colophon.run(path, stages=["tokenize"], executor="inline")
    assert set(first.manifest.outputs) == {"tokens"}
    second = colophon.run(path, executor="inline")
    assert {timing.name: timing.partitions > 0 for timing in second.timings} == {
        "annotate, tokenize": True,
        "pack": True,
    }
    third = colophon.run(path, executor="inline")
    assert all(timing.partitions == 0 for timing in third.timings)


def test_errors_name_the_recipe(tmp_path: Path) -> None:
    path = write_small_run(tmp_path / "project", num_files=1)
    with pytest.raises(UsageError, match=r"recipe\.toml: input\.paths: .*no such file"):
        colophon.run(
            colophon.load_recipe(str(path), overrides=["input.paths=/no/such/file.parquet"]), name="recipe.toml"
        )
    with pytest.raises(UsageError, match="unknown executor 'cluster'; available: auto, local, ray, inline"):
        colophon.run(path, executor="cluster")


def test_memory_of_one_process_is_refused_where_there_are_workers(tmp_path: Path) -> None:
    path = write_small_run(tmp_path / "project", num_files=1)
    output = colophon.load_recipe(str(path), overrides=["output.path=memory://recipe-run/out"])
    with pytest.raises(UsageError, match=r"recipe: output\.path: memory://recipe-run/out is in the memory of one proc"):
        colophon.run(output, executor="local")
    made_elsewhere = colophon.load_recipe(str(path), overrides=["input.paths=memory://recipe-run/in"])
    with pytest.raises(UsageError, match=r"input\.paths: memory://recipe-run/in is in the memory of one process; run "):
        colophon.run(made_elsewhere, executor="local")
    assert colophon.run(output, stages=["tokenize"], executor="inline").exit_code == 0
