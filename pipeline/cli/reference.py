"""The reference of the command line, written from the commands' own help.

python -m colophon.pipeline.cli.reference > docs/commands.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any

import typer

from colophon.pipeline import cli

_HEAD = """# Commands

`make docs` writes this page from the help of the commands. `python -m colophon` is the same command.
[running.md](running.md#exit-codes) lists the exit codes.
"""


def reference() -> str:
    """Return `docs/commands.md`: a section for each command with its text, its example and its options."""
    group: Any = typer.main.get_command(cli.app)
    sections = ["\n".join(_section(name, command)) for name, command in group.commands.items()]
    return "\n".join([_HEAD, *sections])


def _section(name: str, command: Any) -> Iterator[str]:
    description, _, example = command.help.partition("\n\nExample: ")
    yield f"## {name}\n\n{' '.join(description.split())}\n\n    {' '.join(example.split()).strip('`')}\n"
    if command.params:
        yield "| option | default | |\n| --- | --- | --- |"
        for parameter in command.params:
            yield f"| {_name(parameter)} | {_default(parameter)} | {_cell(parameter.help)} |"
        yield ""


def _name(parameter: Any) -> str:
    """Return the option as it is written: `--set KEY=VALUE`, `RECIPE`."""
    option = max(parameter.opts, key=len)
    if not option.startswith("-"):
        return f"`{option.upper()}`"
    return f"`{option} {parameter.metavar}`" if parameter.metavar else f"`{option}`"


def _default(parameter: Any) -> str:
    """Return the default as help shows it; an option with a fixed set of values lists them."""
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return _cell(parameter.show_default)
    if isinstance(parameter.default, Enum):
        others = [value.value for value in type(parameter.default) if value is not parameter.default]
        return f"`{parameter.default.value}`; or {', '.join(f'`{other}`' for other in others)}"
    return "" if parameter.default in {None, False} else f"`{parameter.default}`"


def _cell(text: str) -> str:
    """Return a text that a table's cell can hold."""
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    sys.stdout.write(reference())
