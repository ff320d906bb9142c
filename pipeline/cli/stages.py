"""Commands that run stages: run, annotate, tokenize, pack, and submit for a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from colophon.pipeline.cli.options import (
    DryRunOption,
    ExecutorOption,
    RebuildOption,
    RecipeArgument,
    SetOption,
    StrictOption,
    echo,
    make_console,
)
from colophon.pipeline.executors.session import ExecutorName, ExecutorSession


def _stage_command(name: str, stages: tuple[str, ...], docstring: str) -> Callable[..., None]:
    """Return the command `name`, which runs `stages`: these commands have the same options."""

    def command(
        recipe: RecipeArgument,
        settings: SetOption = None,
        executor: ExecutorOption = ExecutorName.AUTO,
        rebuild: RebuildOption = False,
        strict: StrictOption = False,
        dry_run: DryRunOption = False,
    ) -> None:
        _run(recipe, settings, stages, executor=executor, rebuild=rebuild, strict=strict, dry_run=dry_run)

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


def _run(
    recipe: str,
    settings: list[str] | None,
    stages: tuple[str, ...],
    *,
    executor: ExecutorName,
    rebuild: bool,
    strict: bool,
    dry_run: bool,
) -> None:
    begun = time.monotonic()
    from colophon.pipeline.recipe.loading import load_recipe
    from colophon.pipeline.storage.files import files_at
    from colophon.shards.manifest import MANIFEST_NAME

    loaded = load_recipe(recipe, overrides=settings or [])
    with ExecutorSession(executor, loaded.ray, log=echo) as session:
        if not dry_run and files_at(loaded.output.path).size(MANIFEST_NAME) is None:  # else there may be nothing to do
            session.begin()
        # Everything else is imported and checked while workers start.
        from colophon.pipeline.reports.summary import print_summary, summarize, write_report
        from colophon.pipeline.runs.calibration import calibrated
        from colophon.pipeline.runs.resolve import resolve
        from colophon.pipeline.runs.run import Run
        from colophon.pipeline.storage.lock import locked

        console = make_console()
        resolved = resolve(loaded, where=recipe)
        if "tokenize" in stages or "pack" in stages:
            _ = resolved.tokenizer  # fails now rather than after an hour of annotating
        if dry_run:
            from colophon.pipeline.runs.dry_run import print_plan

            resolved = calibrated(resolved, write=False, log=echo, rebuild=rebuild)
            print_plan(resolved, stages=stages, console=console)
            return
        _ = resolved.inputs  # nothing is written for input that cannot be read
        with locked(resolved.store, log=echo) as owner:
            resolved = resolved.for_run(owner.token)
            resolved = calibrated(resolved, write="annotate" in stages, log=echo, rebuild=rebuild)
            result = Run(
                resolved,
                stages=stages,
                executor=session.executor,
                console=console,
                connect=session.connect,
                rebuild=rebuild,
                strict=strict,
                begun=begun,
            ).execute()
            session.leave()
            summary = summarize(result, store=resolved.store)
            write_report(summary, result, store=resolved.store)
        print_summary(summary, result.manifest, console=console)
    raise typer.Exit(int(result.exit_code))


def submit(
    recipe: RecipeArgument,
    address: Annotated[str, typer.Option(help="Address of the cluster's job server: http://HOST:8265.")],
    settings: SetOption = None,
    working_dir: Annotated[
        Path, typer.Option(help="Directory that is uploaded to the cluster; the run starts in it.")
    ] = Path(),
    requirements: Annotated[
        Path | None,
        typer.Option(
            help="Requirements file that pip installs for the job.", show_default="constraints.txt if it exists"
        ),
    ] = None,
    no_install: Annotated[
        bool, typer.Option("--no-install", help="Install nothing: the cluster's image has the dependencies.")
    ] = False,
    rebuild: RebuildOption = False,
    strict: StrictOption = False,
) -> None:
    """Submit a run to a Ray cluster, follow its log, and end with its exit code.

    Example: `colophon submit recipes/web.toml --address http://127.0.0.1:8265`
    """
    from colophon.pipeline.runs.submit import submit_run

    flags = [*(["--rebuild"] if rebuild else []), *(["--strict"] if strict else [])]
    code = submit_run(
        recipe,
        address=address,
        overrides=settings or [],
        flags=flags,
        working_dir=working_dir,
        requirements=requirements,
        install=not no_install,
        log=lambda text: typer.echo(text, nl=False),
    )
    raise typer.Exit(code)
