"""pydantic's errors as one line with file, key and choices."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field

from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.error_messages import choices, validated


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    renamed_keys: ClassVar[dict[str, str]] = {"weigth": "weight"}
    weight: float = Field(1.0, ge=0)
    name: str = Field("a", min_length=1)


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    parts: dict[str, Part] = {}
    listed: tuple[Part, ...] = ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"parts": {"a": {"weigth": 2}}}, "parts.a.weigth: renamed to weight"),
        ({"listed": [{}, {"weigth": 2, "weight": 2}]}, "listed.1.weigth: renamed to weight"),
        ({"parts": {"a": {"size": 2}}}, "parts.a.size: unknown key; available: name, weight"),
        ({"weight": 2}, "weight: unknown key; it belongs in parts or listed; available: listed, parts"),
        ({"parts": {"a": {"weight": -1}}}, "parts.a.weight: must be greater than or equal to 0, got -1"),
        ({"parts": {"a": {"name": ""}}}, "parts.a.name: must have at least 1 character, got ''"),
        ({"parts": {"a": 3}}, "parts.a: must be a table, got 3; its keys: name, weight"),
        ({"listed": 3}, "listed: must be a list, got 3"),
    ],
)
def test_an_error_names_file_key_and_choices(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(f'recipe.toml: train.{message}')}$"):
        validated(Whole, data, where="recipe.toml", under=("train",))


def test_choices_are_sorted() -> None:
    assert choices(["b", "a"]) == "a, b"
    assert choices([]) == "none"
