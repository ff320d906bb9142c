"""Commands to start with: a recipe for the user's files, and the bundled recipes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colophon.pipeline.cli.options import JsonOption, local_file
from colophon.pipeline.cli.terminal import echo, echo_json, make_console, output_is_the_result
from colophon.pipeline.errors import InputError, UsageError
from colophon.shards.common.errors import did_you_mean

if TYPE_CHECKING:
    from colophon.pipeline.inputs.overview import Overview
    from colophon.pipeline.inputs.search.found import InputFile


def init(
    paths: Annotated[list[str], typer.Argument(help="Files, directories or globs to read, as in [input] paths.")],
    to: Annotated[Path, typer.Option(help="Recipe file to write.", callback=local_file)] = Path("recipe.toml"),
    text: Annotated[
        str | None,
        typer.Option(help="Name of the text column.", show_default="by its name, else the column of the longest texts"),
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Directory of the run's output.", show_default="out/ and the recipe's name")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing recipe file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented recipe for your files, from a look at their columns and sizes and at this machine.

    Example: `colophon init "data/*.parquet" --to recipe.toml`
    """
    from colophon.pipeline.executors.cpus import num_cpus_here
    from colophon.pipeline.executors.memory_limit import available_memory
    from colophon.pipeline.inputs.search.find import find_files
    from colophon.pipeline.inputs.search.found import describe_left_aside
    from colophon.pipeline.recipe.error_messages import validated
    from colophon.pipeline.recipe.proposal import Input, Machine, find_columns, recipe_text
    from colophon.pipeline.recipe.schema import InputSection
    from colophon.pipeline.runs.run import describe
    from colophon.shards.common.durable import replace_text
    from colophon.shards.common.url_secrets import secret_in

    if to.exists() and not overwrite:
        raise UsageError(f"{to} exists; --overwrite replaces it, --to writes a different file")
    for path in paths:
        if problem := secret_in(path):
            raise UsageError(f"init: PATHS must not hold a secret: {problem}")
    search = find_files(validated(InputSection, {"paths": paths}, where="init"))
    files = search.files
    formats = dict(sorted(Counter(file.format for file in files).items()))
    overview = _overview(files[0])
    columns = find_columns(overview, text=text)
    found = Input(paths=paths, files=len(files), total_bytes=_planned_bytes(paths, columns), overview=overview)
    machine = Machine(cpus=num_cpus_here(), available_bytes=available_memory())
    written = recipe_text(found, machine, columns=columns, output=output or f"out/{to.stem}", name=str(to))
    _check(written, where=str(to))
    replace_text(to, written)
    if as_json:
        listed = [{**column.as_dict(), "becomes": _meaning(column.name, columns)} for column in overview.columns]
        echo_json(
            {
                "recipe": str(to),
                "files": len(files),
                "formats": formats,
                "bytes": found.total_bytes,
                "columns_of": overview.source,
                "columns": listed,
                "quarantine": [entry.model_dump() for entry in search.quarantine],
                "left_aside": [one.model_dump() for one in search.left_aside],
            }
        )
        return
    _print_columns(overview, columns)
    if len(formats) > 1:
        counts = ", ".join(f"{number:,} {name}" for name, number in formats.items())
        echo(
            f"files of {len(formats)} formats ({counts}): only {overview.source} was read. If others have different "
            "columns, write a table of [[inputs]] for each (docs/recipes.md)"
        )
    for entry in search.quarantine:
        echo(f"cannot be read: {describe(entry)}")
    for line in describe_left_aside(search.left_aside):
        echo(f"left aside: {line}")
    echo(f"{to}: written. Next: colophon run {to} --dry-run")


def _overview(file: InputFile) -> Overview:
    from colophon.pipeline.inputs.overview import overview_of

    try:
        return overview_of(file)
    except InputError as error:
        raise UsageError(f"{file.source}: {error}") from error


def _planned_bytes(paths: list[str], columns: dict[str, str]) -> int:
    """Return the bytes of all partitions; of Parquet they are uncompressed."""
    from colophon.pipeline.inputs.columns import ColumnNeed
    from colophon.pipeline.inputs.partitions import plan_inputs
    from colophon.pipeline.recipe.schema import InputSection

    renamed = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    inputs = plan_inputs(InputSection(paths=paths, columns=renamed), needs=[ColumnNeed("text", columns["text"])])
    return int(inputs.partitions.sizes.sum())


def _check(text: str, *, where: str) -> None:
    """Check the recipe as a run would, before it is written.

    Raises:
        UsageError: the recipe cannot work for these files.
    """
    from colophon.pipeline.recipe.loading import parse_recipe_text
    from colophon.pipeline.runs.resolve import resolve

    _ = resolve(parse_recipe_text(text, where=where), where=where).inputs


def _print_columns(overview: Overview, columns: dict[str, str]) -> None:
    from rich.table import Table

    from colophon.pipeline.reports.tables import print_table

    table = Table(title=f"columns of {overview.source}, first {overview.rows:,} rows")
    table.add_column("column", overflow="fold")
    table.add_column("type", overflow="fold")
    table.add_column("known", justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("becomes")
    table.add_column("example", overflow="fold")
    for column in overview.columns:
        size = "" if column.mean_bytes is None else f"{column.mean_bytes:,.0f}"
        becomes = _meaning(column.name, columns) or ""
        table.add_row(column.name, column.type, f"{column.known:.1%}", size, becomes, column.example)
    print_table(table, console=make_console())


def _meaning(column: str, columns: dict[str, str]) -> str | None:
    """Return FineWeb's name of a column of the input; None if the recipe does not use it."""
    return next((ours for ours, theirs in columns.items() if theirs == column), None)


def recipes(
    show: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Bundled recipe to print.", show_default="all are listed"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the bundled recipes, or print one, to be copied and changed.

    Example: `colophon recipes --show web > recipe.toml`
    """
    from colophon.pipeline.recipe.loading import load_recipe, shipped_recipes

    output_is_the_result()
    shipped = shipped_recipes()
    if show is not None and show not in shipped:
        raise UsageError(
            f"--show {show}: no such recipe; bundled recipes: {', '.join(shipped)}{did_you_mean(show, shipped)}"
        )
    if show is not None and as_json:
        echo_json(load_recipe(show).model_dump(mode="json", exclude_none=True))
    elif show is not None:
        echo(shipped[show].read_text(encoding="utf-8"), end="")
    elif as_json:
        echo_json([{"name": name, "title": _title(path), "path": str(path)} for name, path in shipped.items()])
    else:
        for name, path in shipped.items():
            echo(f"{name:<14} {_title(path)}")


def _title(path: Path) -> str:
    """Return a recipe's first comment."""
    return path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
