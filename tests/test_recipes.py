"""The bundled recipes load by name and are valid, as far as a recipe alone can be checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from colophon.annotators.base import annotator_types
from colophon.pipeline.recipe.loading import find_recipe, load_recipe, shipped_recipes
from colophon.shards.packing.pack import smallest_row
from tests.pipeline.project import colophon

NAMES = sorted(shipped_recipes())


def test_the_bundled_recipes_exist() -> None:
    assert {"annotate-everything", "demo", "fineweb-edu", "web"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_recipe_loads_by_name(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.tokenizer is not None
    assert {layout.position for layout in recipe.layouts.values()} == {"plain", "prepend", "append", "meta_tokens"}
    assert all(smallest_row(layout) <= recipe.pack.sequence_length + 1 for layout in recipe.layouts.values())
    assert all(train.layout in recipe.layouts for train in recipe.train.values())
    assert recipe.output.path == f"out/{name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_recipe_begins_with_its_description(name: str) -> None:
    first = find_recipe(name).read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r"# \S.{20,}\.", first)
    listed = colophon("recipes")
    assert listed.code == 0
    assert f"{name} " in listed.out
    assert first.lstrip("# ") in listed.out


def test_annotate_everything_has_every_annotator_that_needs_no_network() -> None:
    """Its first lines find duplicates before the annotator that joins them."""
    types = {config.type_name for config in load_recipe("annotate-everything").annotators.values()}
    assert {*annotator_types()} - types == {"llm_tags"}
    text = find_recipe("annotate-everything").read_text(encoding="utf-8")
    commands = re.findall(r"^#   colophon (\w+) annotate-everything", text, re.MULTILINE)
    assert commands == ["duplicates", "annotate", "report"]


def test_a_file_has_precedence_over_a_bundled_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("web").write_text("[input]\npaths = ['own.parquet']\n[output]\npath = 'own'\n")
    assert load_recipe("web").output.path == "own"
    assert load_recipe("demo").output.path == "out/demo"
