"""Names of results, and metadata given as options."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from colophon.pipeline.cli.options import fields_of, result_name
from colophon.pipeline.errors import UsageError

app = typer.Typer()


@app.command()
def study(
    call: typer.Context,
    *,
    recipe: str,
    name: str,
    by: Annotated[list[str] | None, typer.Option()] = None,
    documents: int = 500,
    output: str | None = None,
    settings: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    typer.echo(result_name("study", call, exclude=["name"], beside=name.split("+")[1:]))


def named(*options: str, model: str = "url") -> str:
    done = CliRunner().invoke(app, ["recipe.toml", model, *options])
    assert done.exit_code == 0, done.output
    return done.output.strip()


def test_a_call_with_defaults_has_the_plain_name() -> None:
    assert named() == named("--documents", "500") == named("--set", "a.b=1") == "study"


def test_a_name_contains_options_that_are_not_at_their_defaults() -> None:
    assert named("--documents", "7", "--by", "topic", "--by", "a-b") == "study-by=topic,a-b-documents=7"


def test_a_name_contains_the_other_models() -> None:
    assert named("--documents", "7", model="url+plain+b") == "study-beside=plain,b-documents=7"


def test_different_values_have_different_names_without_dot_or_slash() -> None:
    places = ["out/val", "out_val", "out.val", "x" * 50, "x" * 51, "größe"]
    names = [named("--output", place) for place in places]
    assert len(set(names)) == len(places)
    assert names[1] == "study-output=out_val"
    assert not any(set("./ü") & set(name) for name in names)


def test_a_field_has_one_value() -> None:
    assert fields_of(["url=a=b", "topic="]) == {"url": "a=b", "topic": ""}
    with pytest.raises(UsageError, match="--meta topic=B: topic is 'A' already; a field has one value"):
        fields_of(["topic=A", "topic=B"])


def test_a_name_is_short_enough_for_file_systems() -> None:
    columns = [option for number in range(50) for option in ("--by", f"column{number}")]
    names = {named(*columns), named(*columns[:-2]), named(*columns[:-2], "--by", "other")}
    assert len(names) == 3
    assert max(map(len, names)) < 230
