"""docs/commands.md is the help of the commands."""

from __future__ import annotations

from pathlib import Path

import typer

from colophon.pipeline import cli
from colophon.pipeline.cli.reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "commands.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "docs/commands.md is out of date: run `make docs`"


def test_every_command_and_option_is_on_the_page() -> None:
    text = reference()
    sections = dict(section.split("\n", 1) for section in text.split("\n## ")[1:])
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert list(sections) == list(commands)
    for name, command in commands.items():
        assert f"\n    colophon {name}" in sections[name], f"{name} has no example"
        for parameter in command.params:
            option = max(parameter.opts, key=len)
            shown = option if option.startswith("-") else option.upper()
            assert f"\n| `{shown}" in sections[name], f"{name} {shown}"


def test_a_row_has_the_option_its_default_and_its_help() -> None:
    rows = set(reference().splitlines())
    assert (
        "| `RECIPE` | required | Recipe file, or the name of a bundled recipe (`colophon recipes` lists them). |"
        in rows
    )
    assert "| `--step` | the newest | Step of the checkpoint. |" in rows
    assert "| `--dtype` | `float32`; or `bfloat16` | Data type of the weights in the file. |" in rows
    assert "| `--temperature` | `0.8` | Sampling temperature; 0 always takes the likeliest token. |" in rows
