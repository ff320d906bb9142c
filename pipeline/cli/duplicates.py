"""The command that finds duplicates before a run."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colophon.pipeline.cli.options import (
    DryRunOption,
    ExecutorOption,
    JsonOption,
    NoProbeOption,
    RebuildOption,
    RecipeArgument,
    SetOption,
    StrictOption,
)
from colophon.pipeline.cli.stages import parsed_shard, planned, share_json
from colophon.pipeline.cli.terminal import echo, echo_json, make_console, output_is_the_result, progress_log
from colophon.pipeline.executors.session import ExecutorName
from colophon.shards.common.errors import ExitCode

if TYPE_CHECKING:
    from colophon.pipeline.duplicates.find import FoundDuplicates
    from colophon.pipeline.recipe.schema import Recipe
    from colophon.pipeline.runs.run import RunResult
    from colophon.pipeline.storage.shard import Shard


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
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER/COUNT",
            help="Compute the keys of this share of the partitions alone, such as 3/64, without Ray, and write no "
            "table. Any number of shards may run at once, on any machines that share the output; the same command "
            "without --shard then writes the table.",
            show_default="all partitions",
        ),
    ] = None,
    rebuild: RebuildOption = False,
    strict: StrictOption = False,
    dry_run: DryRunOption = False,
    no_probe: NoProbeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find equal and similar documents, and write the tables that the recipe's annotators of type duplicates join.

    Example: `colophon duplicates recipes/web.toml`
    """
    from colophon.pipeline.duplicates.keys import chosen_names
    from colophon.pipeline.recipe.loading import load_recipe

    share = None if shard is None else parsed_shard(shard)
    loaded = load_recipe(recipe, overrides=settings or [])
    names = chosen_names(loaded, name, where=recipe)
    if dry_run:
        output_is_the_result()
        _print_plans(loaded, names, where=recipe, shard=share, rebuild=rebuild, may_probe=not no_probe, as_json=as_json)
        return
    options = {
        "where": recipe,
        "executor": executor,
        "rebuild": rebuild,
        "strict": strict,
        "console": make_console(err=as_json),
        "log": progress_log(as_json),
    }
    if share is None:
        code = _find(loaded, names, options, as_json=as_json)
    else:
        code = _compute_share(loaded, names, share, options, then=_command(recipe, settings, name), as_json=as_json)
    raise typer.Exit(int(code))


def _find(recipe: Recipe, names: list[str], options: dict[str, Any], *, as_json: bool) -> ExitCode:
    """Write the tables, and print a line on each."""
    from colophon.pipeline.duplicates.find import find_duplicates

    found = [find_duplicates(recipe, name, **options) for name in names]
    code = max(each.exit_code for each in found)
    if as_json:
        tables = [{**asdict(each), "not_kept": each.not_kept} for each in found]
        echo_json({"exit_code": int(code), "duplicates": tables})
    else:
        for each in found:
            echo(_line(each))
    return code


def _compute_share(
    recipe: Recipe, names: list[str], shard: Shard, options: dict[str, Any], *, then: str, as_json: bool
) -> ExitCode:
    """Compute a shard's keys. `then`: the command that writes the tables."""
    from colophon.pipeline.duplicates.find import compute_keys
    from colophon.pipeline.reports.summary import print_share

    found: dict[str, RunResult] = {}
    for name in names:
        found[name] = compute_keys(recipe, name, shard=shard, **options)
        if not as_json:
            print_share(shard, found[name], then=then, console=options["console"])
    code = max(each.exit_code for each in found.values())
    if as_json:
        shares = [{"name": name, **share_json(shard, each)} for name, each in found.items()]
        echo_json({"exit_code": int(code), "duplicates": shares})
    return code


def _print_plans(recipe: Recipe, names: list[str], *, where: str, as_json: bool, **options: Any) -> None:
    """Print the work on the keys of each table; start nothing."""
    from colophon.pipeline.duplicates.keys import keys_recipe
    from colophon.pipeline.runs.dry_run import print_dry_run

    plans = {}
    for name in names:
        keys = keys_recipe(recipe, name, where=where)
        plans[name] = planned(keys, ("annotate",), where=where, as_json=as_json, **options)
        if not as_json:
            print_dry_run(plans[name], console=make_console())
    if as_json:
        echo_json({"duplicates": [{"name": name, **plan.as_dict()} for name, plan in plans.items()]})


def _command(recipe: str, settings: list[str] | None, names: list[str] | None) -> str:
    from colophon.pipeline.runs.recipe_run import recipe_arguments

    chosen = [part for name in names or () for part in ("--name", name)]
    return " ".join(["colophon duplicates", recipe_arguments(recipe, settings or []), *map(shlex.quote, chosen)])


def _line(found: FoundDuplicates) -> str:
    unread = f" {found.quarantined:,} files or partitions could not be read." if found.quarantined else ""
    return (
        f"{found.name}: {found.clustered:,} of {found.documents:,} documents are in {found.clusters:,} clusters; "
        f"{found.not_kept:,} are not kept.{unread} {found.path}"
    )
