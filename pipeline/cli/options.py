"""Parts that commands share: options, the checked recipe, the executor, names of results, the console."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.session import ExecutorName

if TYPE_CHECKING:
    from colophon.pipeline.recipe.schema import Recipe
    from colophon.pipeline.runs.resolve import ResolvedRecipe
    from colophon.shards.tokenizer.tokenizer import Tokenizer

_URL_AS_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[/\\:]")
"""A URL after `Path` has joined its slashes, or a chain of them: `s3:/bucket`, `zip::s3:/bucket`."""


def local_only(parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return the value of an option that is a local path; the callback of every such option.

    Raises:
        UsageError: it is a URL, which the message does not repeat: it may hold a secret.
    """
    if value is not None and _URL_AS_PATH.match(str(value)):
        raise UsageError(f"{parameter.opts[0]}: must be a local path, not a URL")
    return value


def local_file(parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return the value of an option that is a local file to write; the callback of every such option.

    Raises:
        UsageError: it is a URL or a directory.
    """
    if value is not None and local_only(parameter, value) and value.is_dir():
        raise UsageError(f"{parameter.opts[0]}: {value} is a directory. Give the path of a file")
    return value


RecipeArgument = Annotated[
    str, typer.Argument(help="Recipe file, or the name of a bundled recipe (`colophon recipes` lists them).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the recipe: pack.sequence_length=1024. Repeatable."
    ),
]
ExecutorOption = Annotated[
    ExecutorName,
    typer.Option(
        help="Where tasks run: in local processes, on Ray, or inline in this process. "
        "auto: on Ray if RAY_ADDRESS or ray.address names a cluster, else local."
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER/COUNT",
        help="Work on this share of the partitions alone, such as 3/64, without Ray. Any number of shards may run at "
        "once, on any machines that share the output; `colophon finish` completes the run.",
        show_default="all partitions",
    ),
]
RebuildOption = Annotated[
    bool, typer.Option("--rebuild", help="If settings have changed, replace the outdated files instead of stopping.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Stop at the first input that cannot be read.")]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print the partitions, what is up to date, estimates of time, disk and memory, and the resolved recipe; "
        "write nothing.",
    ),
]
NoProbeOption = Annotated[
    bool,
    typer.Option(
        "--no-probe",
        help="With --dry-run: estimate from earlier runs on this machine alone; otherwise a probe runs the stages on "
        "some rows for about two seconds, in a temporary directory.",
    ),
]
AllowLossyOption = Annotated[
    bool,
    typer.Option(
        "--allow-lossy",
        help="Accept a tokenizer that loses text, and count the losses; the same as --set tokenizer.allow_lossy=true.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON value; progress goes to stderr.")
]
RunNameOption = Annotated[str, typer.Option("--name", help="Name of a trained run: a [train.NAME] of the recipe.")]
RunNamesOption = Annotated[
    list[str], typer.Option("--name", help="Name of a trained run: a [train.NAME] of the recipe. Repeatable.")
]
StepOption = Annotated[int | None, typer.Option(help="Step of the checkpoint.", show_default="the newest")]
DocumentsOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="DIRECTORY",
        callback=local_only,
        help="Output of another run; the documents are read from it.",
        show_default="the models' common validation_output, else the recipe's output",
    ),
]
EvaluatedDocumentsOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="DIRECTORY",
        callback=local_only,
        help="Output of a run; the documents are read from all of it.",
        show_default="the models' common validation_output, else the documents that training held out",
    ),
]
NumDocumentsOption = Annotated[int, typer.Option("--documents", min=1, help="Number of documents to draw.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Random seed for drawing documents, shuffling and resampling.")]
MetadataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--meta",
        metavar="FIELD=VALUE",
        help="Metadata for a field of the layout's template: url=https://..., topic=science. Repeatable.",
    ),
]


def load_and_check(recipe: str, settings: list[str] | None) -> ResolvedRecipe:
    """Load the recipe with its overrides and check all of it.

    Raises:
        UsageError: the recipe has a mistake.
    """
    from colophon.pipeline.recipe.loading import load_recipe
    from colophon.pipeline.runs.resolve import resolve

    return resolve(load_recipe(recipe, overrides=settings or []), where=recipe)


def recipe_and_output(recipe: str, settings: list[str] | None) -> tuple[Recipe, Path]:
    """Load the recipe with its overrides; return it and the local directory that holds its models.

    Commands call it before they import `trainer`: torch takes seconds, and a wrong recipe is reported in less than one.

    Raises:
        UsageError: the recipe has a mistake, or no local directory for models.
    """
    from colophon.pipeline.recipe.loading import load_recipe

    loaded = load_recipe(recipe, overrides=settings or [])
    return loaded, training_root(loaded, where=recipe)


def training_root(recipe: Recipe, *, where: str) -> Path:
    """Return the local directory with the `training/` of a recipe; `where` names the recipe in errors.

    Raises:
        UsageError: the output is in an object store, and the recipe names no local directory.
    """
    if recipe.output.training_root is None:
        raise UsageError(
            f"{where}: output.path {recipe.output.path} is in an object store: set output.local_path, the local "
            "directory for training/"
        )
    return recipe.output.training_root


def tokenizer_of(recipe: Recipe, *, where: str, num_meta_tokens: int) -> Tokenizer:
    """Load the recipe's tokenizer with this number of meta tokens; `where` names the recipe in errors.

    Raises:
        UsageError: the recipe has no tokenizer, or it cannot be loaded.
    """
    from colophon.shards.tokenizer.tokenizer import TokenizerError, load_tokenizer

    if recipe.tokenizer is None:
        raise UsageError(f"{where}: [tokenizer] is required to read text")
    try:
        return load_tokenizer(recipe.tokenizer, num_meta_tokens=num_meta_tokens)
    except TokenizerError as error:
        raise UsageError(f"{where}: tokenizer: {error}") from error


_EXCLUDED_PARAMETERS = frozenset({"recipe", "settings", "as_json", "plugins"})
_MAX_VALUE_LENGTH = 40
_MAX_NAME_LENGTH = 200  # file systems take 255 bytes; a suffix follows


def result_name(stem: str, call: typer.Context, *, exclude: Collection[str] = (), beside: Sequence[str] = ()) -> str:
    """Return a file name without suffix for a command's result: `stem`, and each option that is not at its default.

    Results of different settings get different names: `evaluation`, `evaluation-by=topic-documents=100`.

    Args:
        stem: the first part of the name, the same for all results of the command.
        call: the command's call, with its options.
        exclude: names of parameters that the result's directory or stem contains, or that do not change the result.
        beside: the other models in the result.
    """
    parts = [stem, *([f"beside={','.join(map(file_name_part, beside))}"] if beside else [])]
    for parameter in sorted(call.command.params, key=lambda parameter: str(parameter.name)):
        name, value = str(parameter.name), call.params.get(str(parameter.name))
        if name in _EXCLUDED_PARAMETERS or name in exclude or value in (None, [], (), parameter.get_default(call)):
            continue
        values = value if isinstance(value, list | tuple) else [value]
        parts.append(f"{name}={','.join(map(file_name_part, values))}")
    name = "-".join(parts)
    return name if len(name) <= _MAX_NAME_LENGTH else f"{name[:_MAX_NAME_LENGTH]}_{_digest(name)}"


def file_name_part(value: object) -> str:
    """Return a value in characters that are safe in a file name, with a digest if a character was replaced or cut.

    `topic` stays `topic`; `out/val` becomes `out_val_` and 6 hexadecimal digits.
    """
    text = str(value)
    safe = re.sub(r"[^\w,+-]+", "_", text, flags=re.ASCII)[:_MAX_VALUE_LENGTH]
    return safe if safe == text else f"{safe}_{_digest(text)}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:6]


def fields_of(assignments: list[str]) -> dict[str, str]:
    """Parse `--meta url=https://...` options into a value for each field; values stay strings.

    Raises:
        UsageError: an option is not FIELD=VALUE, or a field has two values.
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
