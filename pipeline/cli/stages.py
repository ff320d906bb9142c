"""Commands that run stages: run, annotate, tokenize, pack, finish after shards, and submit for a cluster."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colophon.pipeline.cli.options import (
    AllowLossyOption,
    DryRunOption,
    ExecutorOption,
    JsonOption,
    NoProbeOption,
    RebuildOption,
    RecipeArgument,
    SetOption,
    ShardOption,
    StrictOption,
    local_only,
)
from colophon.pipeline.cli.terminal import echo, echo_json, make_console, output_is_the_result, progress_log
from colophon.pipeline.executors.session import ExecutorName

if TYPE_CHECKING:
    from colophon.pipeline.recipe.schema import Recipe
    from colophon.pipeline.runs.dry_run import DryRun
    from colophon.pipeline.runs.run import RunResult
    from colophon.pipeline.storage.shard import Shard
    from colophon.shards.outputs import StageName


class JobCommand(StrEnum):
    """The commands that a job can run."""

    RUN = "run"
    DUPLICATES = "duplicates"


def _stage_command(name: str, stages: tuple[StageName, ...], docstring: str) -> Callable[..., None]:
    """Return the command `name`, which runs `stages`: these commands have the same options."""

    def command(
        recipe: RecipeArgument,
        settings: SetOption = None,
        executor: ExecutorOption = ExecutorName.AUTO,
        shard: ShardOption = None,
        rebuild: RebuildOption = False,
        strict: StrictOption = False,
        dry_run: DryRunOption = False,
        no_probe: NoProbeOption = False,
        allow_lossy: AllowLossyOption = False,
        as_json: JsonOption = False,
    ) -> None:
        settings = [*(settings or []), *(["tokenizer.allow_lossy=true"] if allow_lossy else [])]
        share = None if shard is None else parsed_shard(shard)
        loaded = _loaded(recipe, settings)
        if dry_run:
            output_is_the_result()
            from colophon.pipeline.runs.dry_run import print_dry_run

            plan = planned(
                loaded,
                stages,
                where=recipe,
                shard=share,
                rebuild=rebuild,
                may_probe=not no_probe,
                as_json=as_json,
            )
            if as_json:
                echo_json(plan.as_dict())
            else:
                print_dry_run(plan, console=make_console())
        else:
            _run(
                loaded,
                stages,
                where=recipe,
                settings=settings,
                executor=executor,
                shard=share,
                rebuild=rebuild,
                strict=strict,
                as_json=as_json,
            )

    command.__name__, command.__doc__ = name, docstring
    return command


run = _stage_command(
    "run",
    ("annotate", "tokenize", "pack"),
    """Annotate, tokenize and pack what is not up to date.

    Example: `colophon run recipes/web.toml --set pack.sequence_length=1024`
    """,
)
annotate = _stage_command(
    "annotate",
    ("annotate",),
    """Run the recipe's annotators over the input.

    Example: `colophon annotate recipes/web.toml`
    """,
)
tokenize = _stage_command(
    "tokenize",
    ("tokenize",),
    """Tokenize the texts of the input, once for every layout.

    Example: `colophon tokenize recipes/web.toml`
    """,
)
pack = _stage_command(
    "pack",
    ("pack",),
    """Pack tokens and annotations into training sequences, in every layout of the recipe.

    Example: `colophon pack recipes/web.toml --set layouts.prepend-url.dropout=0.2 --rebuild`
    """,
)


def parsed_shard(shard: str) -> Shard:
    """The shard of a `--shard` option."""
    from colophon.pipeline.storage.shard import Shard

    return Shard.parse(shard)


def _loaded(recipe: str, settings: list[str]) -> Recipe:
    from colophon.pipeline.recipe.loading import load_recipe

    return load_recipe(recipe, overrides=settings)


def _run(
    recipe: Recipe,
    stages: tuple[StageName, ...],
    *,
    where: str,
    settings: list[str],
    executor: ExecutorName,
    shard: Shard | None,
    rebuild: bool,
    strict: bool,
    as_json: bool,
) -> None:
    from colophon.pipeline.runs.recipe_run import run_recipe

    result = run_recipe(
        recipe,
        stages=stages,
        executor=executor,
        shard=shard,
        rebuild=rebuild,
        strict=strict,
        name=where,
        settings=settings,
        console=make_console(err=as_json),
        shows_summary=not as_json,
        log=progress_log(as_json),
    )
    if as_json:
        content = result.summary if shard is None else share_json(shard, result)
        echo_json({"exit_code": int(result.exit_code), "output": recipe.output.path, **content})
    raise typer.Exit(int(result.exit_code))


def share_json(shard: Shard, result: RunResult) -> dict[str, Any]:
    """A shard's result as a JSON value."""
    return {
        "shard": str(shard),
        "partitions": len(result.manifest.partitions),
        "quarantined": len(result.manifest.quarantine),
        "seconds": {timing.name: round(timing.seconds, 3) for timing in result.timings},
    }


def finish(recipe: RecipeArgument, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Complete a run whose shards have ended: check that none is missing, write the manifest and the report.

    Example: `colophon finish recipes/web.toml`
    """
    settings = settings or []
    loaded = _loaded(recipe, settings)
    from colophon.pipeline.reports.summary import print_summary
    from colophon.pipeline.runs.sharded.finish import finish_run

    console = make_console(err=as_json)
    result = finish_run(loaded, where=recipe, settings=settings, console=console, log=progress_log(as_json))
    if as_json:
        echo_json({"exit_code": int(result.exit_code), "output": loaded.output.path, **result.summary})
    else:
        print_summary(dict(result.summary), result.manifest, console=console, has_worked=result.has_worked)
    raise typer.Exit(int(result.exit_code))


def planned(
    recipe: Recipe,
    stages: tuple[StageName, ...],
    *,
    where: str,
    shard: Shard | None,
    rebuild: bool,
    may_probe: bool,
    as_json: bool,
) -> DryRun:
    """The files that a run would write, its estimated cost, and the resolved recipe; starts nothing."""
    from colophon.pipeline.runs.calibration import calibrated
    from colophon.pipeline.runs.dry_run import dry_run
    from colophon.pipeline.runs.resolve import resolve

    log = progress_log(as_json)
    resolved = resolve(recipe, where=where).for_shard(shard)
    for line in resolved.check_tokenizer(stages):  # an error of the tokenizer comes before any table
        log(line)
    return dry_run(calibrated(resolved, write=False, log=log, rebuild=rebuild), stages=stages, may_probe=may_probe)


def submit(
    recipe: RecipeArgument,
    address: Annotated[
        str,
        typer.Option(help="Address of the cluster's job server: HOST:8265, http://HOST:8265, or https://HOST/PATH."),
    ],
    settings: SetOption = None,
    command: Annotated[
        JobCommand,
        typer.Option(
            help="Command that the job runs. duplicates: its tables are at absolute paths that all nodes share."
        ),
    ] = JobCommand.RUN,
    working_dir: Annotated[
        Path,
        typer.Option(
            help="Directory that has the recipe, its plugins, and the models and the tokenizer with relative paths.",
            callback=local_only,
        ),
    ] = Path(),
    requirements: Annotated[
        Path | None,
        typer.Option(
            help="Requirements file that pip installs for the job.",
            show_default="the versions installed here",
            callback=local_only,
        ),
    ] = None,
    no_install: Annotated[
        bool, typer.Option("--no-install", help="Install nothing: the cluster's image has the dependencies.")
    ] = False,
    rebuild: RebuildOption = False,
    strict: StrictOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files to upload; send nothing.")] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="End when the job is submitted; print how to follow and stop it.")
    ] = False,
) -> None:
    """Submit a run, or the search for duplicates, to a Ray cluster, follow its log, and end with its exit code.

    Example: `colophon submit recipes/web.toml --address http://127.0.0.1:8265`
    """
    from colophon.pipeline.runs.submit import submit_run

    if dry_run:
        output_is_the_result()
    flags = [*(["--rebuild"] if rebuild else []), *(["--strict"] if strict else [])]
    code = submit_run(
        recipe,
        address=address,
        command=command.value,
        overrides=settings or [],
        flags=flags,
        working_dir=working_dir,
        requirements=requirements,
        install=not no_install,
        dry_run=dry_run,
        waits=not no_wait,
        log=lambda text: echo(text, end=""),
    )
    raise typer.Exit(code)
