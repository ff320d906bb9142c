"""docs/recipe-reference.md is the models of a recipe: every table and key, with a text and an example that loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from colophon.annotators.base import annotator_types
from colophon.pipeline.recipe.reference import Table, descriptions, example, recipe_tables, reference
from colophon.shards import layouts
from colophon.trainer import config as training
from tests.recipe_examples import load_example

PAGE = Path(__file__).parents[3] / "docs" / "recipe-reference.md"
TABLES = recipe_tables()


def section(heading: str) -> str:
    return reference().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def row(heading: str, key: str) -> list[str]:
    (line,) = re.findall(rf"^\| `{key}` \|.*\|$", section(heading), re.MULTILINE)
    return [cell.strip() for cell in line[1:-1].split(" | ")]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "docs/recipe-reference.md is out of date: run `make docs`"


def test_every_model_of_a_recipe_is_a_table_once() -> None:
    models = [table.model for table in TABLES]
    assert len(set(models)) == len(models)
    assert set(annotator_types().values()) <= set(models)
    assert {layouts.PlainLayout, layouts.MetaTokensLayout, training.MuonConfig, training.PhaseConfig} <= set(models)
    headings = [table.heading for table in TABLES]
    assert len(set(headings)) == len(headings)
    assert len({table.anchor for table in TABLES}) == len(headings)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.heading.replace("`", ""))
def test_every_key_has_a_text_and_every_table_an_example(table: Table) -> None:
    tags = {"type", "position"} if table.tag else set()
    assert table.model.model_fields.keys() - descriptions(table.model).keys() - tags == set()
    code = example(table.model)
    assert code, "the docstring needs an example"
    load_example(code)


def test_a_row_has_type_limits_default_and_text() -> None:
    assert row("`[pack]`", "sequence_length")[1:3] == ["integer, ≥ 2, ≤ 2^24", "`2_048`"]
    assert row("`[output]`", "path")[1:3] == ["string", "required"]
    assert row("`[input]`", "format")[1:3] == [
        '`"parquet"`, `"jsonl"`, `"csv"`, `"arrow"`, `"warc"`, `"text"`',
        "unset",
    ]
    assert row("`[ray]`", "partition_timeout_seconds")[1] == "number, > 0"
    assert row("`[train.NAME]`", "optimizer")[2] == '`"adamw"`'
    assert row('`[layouts.NAME]` with `position = "meta_tokens"`', "dropout")[2] == "`0.0`"
    assert "Unset: layers on CUDA" in row("`[train.NAME]`", "compile")[3]


def test_tables_within_tables_are_linked() -> None:
    assert row("`[train.NAME]`", "sources")[1] == "list of tables: [`[[train.NAME.sources]]`](#trainnamesources)"
    assert "(#trainnamesourcescurriculum)" in row("`[[train.NAME.phases]]`", "curriculum")[1]
    inherited = section("`[[inputs]]`")
    assert "It has the keys of [`[input]`](#input)" in inherited
    assert re.findall(r"^\| `(\w+)` ", inherited, re.MULTILINE) == ["name"]


class Base(BaseModel):
    """A base."""

    kept: int = Field(1, ge=1)
    """A key of the base."""
    replaced: Literal["a"] = "a"
    """A key of the base."""


class Derived(Base):
    """A derived model.

    Example:

        [derived]
        kept = 2
    """

    replaced: Any = "b"
    """A key of the
    derived model."""
    bare: int = 0


def test_texts_are_the_docstrings_below_the_fields() -> None:
    assert descriptions(Derived) == {"kept": "A key of the base.", "replaced": "A key of the derived model."}
    assert example(Derived) == "[derived]\nkept = 2"
    assert example(Base) == ""
