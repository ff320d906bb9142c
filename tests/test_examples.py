"""The examples run outside of the checkout: their commands as the page has them, and in every executor."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest

from colophon.pipeline.recipe.schema import RaySection
from tests.pipeline.executors.kinds import SLOW_ON_RAY, started_executor
from tests.pipeline.project import colophon
from tests.pipeline.small_run import run_recipe

EXAMPLE = Path(__file__).parents[1] / "examples" / "annotator"


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the example with its data, as working directory."""
    place = tmp_path / "mine"
    shutil.copytree(EXAMPLE, place, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(place)
    runpy.run_path("make_data.py", run_name="__main__")
    return place


def test_the_commands_of_the_page(copied: Path) -> None:
    (shell,) = re.findall(r"^```sh\n(.*?)^```$", Path("README.md").read_text(), re.DOTALL | re.MULTILINE)
    first, *commands = map(shlex.split, shell.strip().splitlines())
    assert first == ["python", "make_data.py"]
    printed = {}
    for program, *arguments in commands:
        assert program == "colophon"
        executor = ["--executor", "inline"] if arguments[0] == "run" else []
        called = colophon(*arguments, *executor)
        assert (called.code, called.err) == (0, ""), arguments
        printed[arguments[0]] = called.out
    assert re.search(r"length.*text.*length, length_words.*my_annotators\.py", printed["annotators"])
    assert "long" in printed["inspect"]
    assert "all laws of the layouts hold" in printed["verify"]
    assert "--plugins" in colophon("status", "recipe.toml").line


def test_the_page_on_annotators_has_the_code_of_the_example() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "howto" / "own-annotator.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert (EXAMPLE / "my_annotators.py").read_text().endswith(code)
    table, _ = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert table in (EXAMPLE / "recipe.toml").read_text()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", SLOW_ON_RAY)
def test_workers_write_the_bytes_that_one_process_writes(
    kind: str, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLOPHON_PLUGINS", str(copied))
    inline = run_recipe(Path("recipe.toml"), output=copied / "inline")
    assert len(inline) == 5
    with started_executor(kind, RaySection(num_workers=1)) as executor:
        assert run_recipe(Path("recipe.toml"), output=copied / "workers", executor=executor) == inline
