"""pydantic's errors as one line with file, key and choices."""

from __future__ import annotations

import datetime
import math
import re
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from colophon.annotators.base import annotator_types
from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.error_messages import choices, validated
from colophon.pipeline.recipe.reference import recipe_tables

A_DAY = datetime.date(2026, 1, 31)
MODELS = list(dict.fromkeys([*(table.model for table in recipe_tables()), *annotator_types().values()]))


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    renamed_keys: ClassVar[dict[str, str]] = {"weigth": "weight"}
    weight: float = Field(1.0, ge=0)
    name: str = Field("a", min_length=1)


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    parts: dict[str, Part] = {}
    listed: tuple[Part, ...] = ()
    limits: list[int | bool] = []
    edges: tuple[float, float] | None = None
    kinds: dict[Literal["a", "b"], int] = {}
    named: dict[Annotated[str, Field(min_length=2)], int] = {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"parts": {"a": {"weigth": 2}}}, "parts.a.weigth: renamed to weight"),
        ({"listed": [{}, {"weigth": 2, "weight": 2}]}, "listed.1.weigth: renamed to weight"),
        ({"parts": {"a": {"size": 2}}}, "parts.a.size: unknown key; available: name, weight"),
        (
            {"weight": 2},
            "weight: unknown key; it belongs in parts or listed; available: edges, kinds, limits, listed, named, parts",
        ),
        ({"parts": {"a": {"weight": True}}}, "parts.a.weight: must be a number, not true or false"),
        ({"limits": [1, 2.5]}, "limits.1: must be true or false, or a whole number, got 2.5"),
        ({"edges": [1]}, "edges: must be a list of 2, got 1"),
        ({"edges": [1, 2, 3]}, "edges: must have at most 2 items"),
        ({"kinds": {"c": 1}}, "kinds.c: unknown key; available: a, b"),
        ({"named": {"b": 1}}, "named.b: must have at least 2 characters, got 'b'"),
        ({"parts": {"a": {"weight": -1}}}, "parts.a.weight: must be greater than or equal to 0, got -1"),
        ({"parts": {"a": {"name": ""}}}, "parts.a.name: must have at least 1 character, got ''"),
        ({"parts": {"a": 3}}, "parts.a: must be a table, got 3; its keys: name, weight"),
        ({"listed": 3}, "listed: must be a list, got 3"),
    ],
)
def test_an_error_names_file_key_and_choices(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(f'recipe.toml: train.{message}')}$"):
        validated(Whole, data, where="recipe.toml", under=("train",))


WRONG: list[Any] = [
    True,
    0,
    -1,
    10**30,
    0.5,
    math.nan,
    math.inf,
    "",
    " ",
    "nope",
    [],
    [1],
    [{}],
    {},
    {"nope": 1},
    A_DAY,
]
LIBRARY = re.compile(
    r"Input|should|validation|unable|pars|pattern|literal|Error|valid (str|int|num|list|dict|bool|date)"
)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_no_message_on_a_wrong_value_is_in_the_words_of_the_library(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        alone = create_model("Alone", **{name: (field.annotation, field)})  # type: ignore[call-overload]
        for value in WRONG:
            try:
                validated(alone, {name: value}, where="recipe.toml")
            except UsageError as error:
                where, key, message = str(error).split(": ", 2)
                assert (where, key.split(".")[0]) == ("recipe.toml", name)
                assert not LIBRARY.search(message), f"{value!r}: {error}"
                assert "\n" not in message


def test_choices_are_sorted() -> None:
    assert choices(["b", "a"]) == "a, b"
    assert choices([]) == "none"
