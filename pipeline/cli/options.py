"""What the commands share: options, the checked recipe, the executor, the console."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from pipeline.prepare import Prepared


class ExecutorName(str, Enum):
    """Where work runs."""

    RAY = "ray"
    INLINE = "inline"


RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of one that Colophon brings.")]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time, on Python 3.10 too
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, such as pack.sequence_length=1024."),
]
ExecutorOption = Annotated[ExecutorName, typer.Option(help="Run on Ray, or in this process.")]
RebuildOption = Annotated[
    bool, typer.Option("--rebuild", help="Redo what changed settings made stale, instead of stopping.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Stop at the first input that cannot be read.")]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the resolved recipe, the partitions and what is up to date; run nothing."),
]


def load_and_check(recipe: str, settings: list[str] | None) -> Prepared:
    """The recipe with its overrides, checked whole.

    Raises:
        UsageError: something in it cannot work.
    """
    from pipeline.prepare import prepare
    from pipeline.recipe import load_recipe

    return prepare(load_recipe(recipe, overrides=settings or []), where=recipe)


class executor_of:  # noqa: N801 - used as a function
    """The executor asked for, and what to call before its first task; leaves Ray at the end."""

    def __init__(self, name: ExecutorName, prepared: Prepared) -> None:
        self._name = name
        self._ray = prepared.recipe.ray
        self._connected = False

    def __enter__(self) -> tuple[Any, Callable[[], None]]:
        if self._name is ExecutorName.INLINE:
            from pipeline.work import InlineExecutor

            return InlineExecutor(), lambda: None
        from pipeline.on_ray import RayExecutor

        return RayExecutor(self._ray), self._connect

    def _connect(self) -> None:
        from pipeline.on_ray import connect

        connect(self._ray, log=echo)
        self._connected = True

    def __exit__(self, *_: object) -> None:
        if self._connected:
            from pipeline.on_ray import disconnect

            disconnect()


def make_console() -> Any:
    """A rich console for tables and progress."""
    from rich.console import Console

    # Tables keep their width where the output is a file: 80 columns would fold them.
    # What stands in documents and file names is never markup.
    console = Console(markup=False, emoji=False)
    return console if console.is_terminal else Console(width=160, markup=False, emoji=False)


def echo(line: str) -> None:
    """Print a line."""
    typer.echo(line)
