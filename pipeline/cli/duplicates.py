"""The command that finds duplicates before a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from colophon.pipeline.cli.options import (
    ExecutorOption,
    JsonOption,
    RebuildOption,
    RecipeArgument,
    SetOption,
    StrictOption,
)
from colophon.pipeline.cli.terminal import echo, echo_json, make_console, progress_log
from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.session import ExecutorName
from colophon.shards.common.errors import ExitCode

if TYPE_CHECKING:
    from colophon.pipeline.duplicates.find import FoundDuplicates


def duplicates(
    recipe: RecipeArgument,
    settings: SetOption = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="Annotator of type duplicates to write the table of. Repeatable.", show_default="all of the recipe"
        ),
    ] = None,
    executor: ExecutorOption = ExecutorName.AUTO,
    rebuild: RebuildOption = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find equal and similar documents, and write the tables that the recipe's annotators of type duplicates join.

    Example: `colophon duplicates recipes/web.toml`
    """
    from colophon.pipeline.duplicates.find import find_duplicates
    from colophon.pipeline.duplicates.keys import duplicates_names
    from colophon.pipeline.recipe.loading import load_recipe

    loaded = load_recipe(recipe, overrides=settings or [])
    names = name or duplicates_names(loaded)
    if not names:
        raise UsageError(f"{recipe}: no annotator of type 'duplicates'. Add one: [annotators.duplicates]")
    found = [
        find_duplicates(
            loaded,
            each,
            where=recipe,
            executor=executor,
            rebuild=rebuild,
            strict=strict,
            console=make_console(err=as_json),
            log=progress_log(as_json),
        )
        for each in names
    ]
    if as_json:
        echo_json({"duplicates": [{**asdict(each), "not_kept": each.not_kept} for each in found]})
    else:
        for each in found:
            echo(_line(each))
    raise typer.Exit(int(max((each.exit_code for each in found), default=ExitCode.COMPLETE)))


def _line(found: FoundDuplicates) -> str:
    return (
        f"{found.name}: {found.clustered:,} of {found.documents:,} documents are in {found.clusters:,} clusters; "
        f"{found.not_kept:,} are not kept. {found.path}"
    )
