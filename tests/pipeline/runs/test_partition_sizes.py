"""`partition_bytes = "auto"`: chosen once, by the input and the recipe, and kept for files that are added."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colophon.pipeline.inputs import partition_size
from colophon.pipeline.inputs.partition_size import automatic_bytes
from colophon.pipeline.runs.partition_sizes import kept_sizes
from tests.pipeline.project import colophon, manifest, redone, resolved_recipe, run, snapshot, write_documents

AUTO = ("--set", "input.partition_bytes=auto")
KEPT = Path("out/calibration/.partition_bytes.json")


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_size, "_SMALLEST", 64)


def size_of_input() -> int:
    return sum(path.stat().st_size for path in Path("data").iterdir())


def test_the_size_is_shown_before_the_run_and_kept_by_it(project: Path) -> None:
    size = automatic_bytes(size_of_input(), workers=3)
    settings = (*AUTO, "--set", "ray.num_workers=3")
    dry = colophon("run", "recipe.toml", "--dry-run", "--no-probe", *settings)
    line = f"input.partition_bytes = {size}, 0 MiB, chosen by auto"
    assert line in dry.out
    shown = colophon("run", "recipe.toml", "--dry-run", "--no-probe", "--json", *settings)
    assert json.loads(shown.out)["partition_bytes_chosen"] == {"input": size}
    assert not Path("out").exists()
    called = run(*settings)
    assert (called.code, called.err) == (0, "")
    assert line in called.out
    assert kept_sizes(resolved_recipe().store) == {"input": size}


def test_added_files_and_other_workers_change_no_cut(project: Path) -> None:
    assert run(*AUTO).code == 0
    before, names = snapshot(Path("out")), {info.name for info in manifest().partitions}
    kept = KEPT.read_text()
    for number in range(3, 12):
        write_documents(Path(f"data/part-{number}.parquet"), range(1000 * number, 1000 * number + 80))
    larger = automatic_bytes(size_of_input(), workers=1)
    assert {"input": larger} != json.loads(kept)
    assert run(*AUTO, "--set", "ray.num_workers=1").code == 0
    assert names < {info.name for info in manifest().partitions}
    assert not any(name in path for path in redone(before, snapshot(Path("out"))) for name in names)
    assert KEPT.read_text() == kept
    KEPT.write_text("[")  # a damaged file is as none
    assert f"input.partition_bytes = {larger}," in run(*AUTO, "--set", "ray.num_workers=1").out


def test_other_words_are_refused_with_the_choice(project: Path) -> None:
    called = run("--set", "input.partition_bytes=automatic")
    assert called.code == 2
    assert called.line == (
        "recipe.toml: input.partition_bytes: must be a whole number of bytes from 1 on, or 'auto', got 'automatic'"
    )
