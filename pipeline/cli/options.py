"""What the commands share: options, the checked recipe, the executor, the console."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from colophon.pipeline.errors import UsageError

if TYPE_CHECKING:
    from colophon.pipeline.executors.base import Executor
    from colophon.pipeline.recipe.schema import RaySection, Recipe
    from colophon.pipeline.runs.resolve import Prepared
    from colophon.shards.tokenizer.tokenizer import Tokenizer


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
StepOption = Annotated[Optional[int], typer.Option(help="The checkpoint's step; the newest if left out.")]  # noqa: UP045


def load_and_check(recipe: str, settings: list[str] | None) -> Prepared:
    """The recipe with its overrides, checked whole.

    Raises:
        UsageError: something in it cannot work.
    """
    from colophon.pipeline.recipe.loading import load_recipe
    from colophon.pipeline.runs.resolve import prepare

    return prepare(load_recipe(recipe, overrides=settings or []), where=recipe)


def recipe_and_output(recipe: str, settings: list[str] | None) -> tuple[Recipe, Path]:
    """The recipe with its overrides, and the local directory under which its models lie.

    Raises:
        UsageError: something in it cannot work, or its output lies elsewhere.
    """
    from colophon.pipeline.recipe.loading import load_recipe

    loaded = load_recipe(recipe, overrides=settings or [])
    if "://" in loaded.output.path:
        raise UsageError(f"{recipe}: output.path {loaded.output.path}: models are read from a local directory")
    return loaded, Path(loaded.output.path)


def tokenizer_of(recipe: Recipe, *, where: str) -> Tokenizer:
    """The recipe's tokenizer; `where` is what errors call the recipe.

    Raises:
        UsageError: the recipe names none, or it cannot be loaded.
    """
    from colophon.shards.tokenizer.tokenizer import TokenizerError, load_tokenizer

    if recipe.tokenizer is None:
        raise UsageError(f"{where}: [tokenizer] is required to read text")
    try:
        return load_tokenizer(recipe.tokenizer, num_meta_tokens=recipe.num_meta_tokens)
    except TokenizerError as error:
        raise UsageError(f"{where}: tokenizer: {error}") from error


def write_whole(path: Path, text: str) -> None:
    """A whole file or none."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


_NOT_IN_NAMES = frozenset({"recipe", "settings", "as_json"})
_LONGEST_VALUE = 40
_LONGEST_NAME = 200  # of 255 bytes that file systems take


def result_name(stem: str, call: typer.Context, *, leave_out: Collection[str] = (), beside: Sequence[str] = ()) -> str:
    """What a call's result is named, without a suffix: `stem`, and each option that is not at its default.

    So results of other settings lie beside each other: `evaluation`, `evaluation-by=topic-documents=100`.

    Args:
        stem: of all results of the command.
        call: the command's, with its options.
        leave_out: names of parameters that the result's place or stem tells, or that change nothing in it.
        beside: other models that are part of it.
    """
    parts = [stem, *([f"beside={','.join(map(_spelled, beside))}"] if beside else [])]
    for parameter in sorted(call.command.params, key=lambda parameter: str(parameter.name)):
        name, value = str(parameter.name), call.params.get(str(parameter.name))
        if name in _NOT_IN_NAMES or name in leave_out or value in (None, [], (), parameter.get_default(call)):
            continue
        values = value if isinstance(value, list | tuple) else [value]
        parts.append(f"{name}={','.join(map(_spelled, values))}")
    name = "-".join(parts)
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}_{_digest(name)}"


def _spelled(value: object) -> str:
    """A value in characters that are safe in a file's name; with a digest where that leaves something out."""
    text = str(value)
    safe = re.sub(r"[^\w,+-]+", "_", text, flags=re.ASCII)[:_LONGEST_VALUE]
    return safe if safe == text else f"{safe}_{_digest(text)}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:6]


class executor_of:  # noqa: N801 - used as a function
    """Where tasks are worked on: `executor`, and `connect` before its first task. Leaves Ray at the end."""

    def __init__(self, name: ExecutorName, config: RaySection) -> None:
        self._config = config
        self._on_ray = name is ExecutorName.RAY
        self._connection: Future[list[str]] | None = None
        self._leaving: Future[None] | None = None

    @cached_property
    def executor(self) -> Executor:
        """Its first use imports Ray, if it is the one that uses Ray."""
        if self._on_ray:
            from colophon.pipeline.executors.on_ray.pool import RayExecutor

            return RayExecutor(self._config)
        from colophon.pipeline.executors.inline import InlineExecutor

        return InlineExecutor()

    def __enter__(self) -> executor_of:
        return self

    def begin(self) -> None:
        """Start connecting, on a thread: for a run that will surely have work, while its plan is made."""
        if self._on_ray and self._connection is None:
            # Ray's processes are killed by the system when the thread that started them ends: it ends last.
            self._thread = ThreadPoolExecutor(1)
            self._connection = self._thread.submit(self._connect)

    def connect(self) -> None:
        """Be connected."""
        self.begin()
        if self._connection is not None:
            lines = self._connection.result()
            while lines:
                echo(lines.pop(0))

    def _connect(self) -> list[str]:
        from colophon.pipeline.executors.on_ray.cluster import connect

        lines: list[str] = []
        connect(self._config, log=lines.append)
        return lines

    def leave(self) -> None:
        """Start leaving Ray, where all tasks are done, while something else is done."""
        if self._connection is not None and self._leaving is None:
            self._leaving = self._thread.submit(self._disconnect)

    def _disconnect(self) -> None:
        from colophon.pipeline.executors.on_ray.cluster import disconnect

        self.executor.close()
        disconnect()

    def __exit__(self, *_: object) -> None:
        self.leave()
        if self._leaving is not None:
            self._leaving.result()
            self._thread.shutdown()


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


def fields_of(assignments: list[str]) -> dict[str, str]:
    """`--meta url=https://...` as a table; the value is text as it stands.

    Raises:
        UsageError: one is no assignment, or a field has two values.
    """
    table: dict[str, str] = {}
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        if not field or not equals:
            raise UsageError(f"--meta {assignment}: write field=value")
        if field in table:
            raise UsageError(f"--meta {assignment}: {field} is {table[field]!r} already; a field has one value")
        table[field] = value
    return table
