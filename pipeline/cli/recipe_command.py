"""The `--plugins` option, which every command that takes a recipe has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

PluginsOption = Annotated[
    bool,
    typer.Option(
        "--plugins",
        help="Run the Python files that the recipe lists under [plugins]. Read them first: they run with your rights.",
    ),
]


def with_plugins_option(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with `--plugins`, which its function need not know; without a RECIPE, the command itself."""
    signature = inspect.signature(command, eval_str=True)
    if "recipe" not in signature.parameters:
        return command

    @functools.wraps(command)
    def wrapped(*, plugins: bool, **arguments: Any) -> None:
        if not plugins:
            command(**arguments)
            return
        from colophon.pipeline.recipe.plugins import plugins_allowed  # it imports pyarrow

        with plugins_allowed():
            command(**arguments)

    option = inspect.Parameter("plugins", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=PluginsOption)
    parameters = [*signature.parameters.values(), option]
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped
