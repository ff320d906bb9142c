"""The command that names the documents in an update of a training."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from colophon.pipeline.cli.options import JsonOption, RecipeArgument, RunNameOption, SetOption, recipe_and_output
from colophon.pipeline.cli.terminal import echo, echo_json, is_first_process, make_console, output_is_the_result
from colophon.shards.stores.places import run_place


def trace(
    recipe: RecipeArgument,
    name: RunNameOption,
    step: Annotated[int, typer.Option(min=1, help="Number of the update, from 1.")],
    documents: Annotated[
        int, typer.Option("--documents", min=1, help="Number of documents to print; --json prints all.")
    ] = 20,
    losses: Annotated[
        bool, typer.Option("--losses/--no-losses", help="Compute losses with the nearest checkpoint, if there is one.")
    ] = True,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Annotation column to print. Repeatable.", show_default="all; --json prints all"),
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the documents in one update of a training, found by its order alone: the highest loss first.

    Example: `colophon trace recipes/web.toml --name prepend-url --step 1200 --column url`
    """
    if not is_first_process():
        return
    loaded, output = recipe_and_output(recipe, settings)
    from colophon.pipeline.reports.trace_table import as_json_value, print_trace
    from colophon.trainer.monitoring.update_trace import trace_update

    output_is_the_result()
    traced = trace_update(output, name, step, run=run_place(loaded.output.path), with_losses=losses)
    result = as_json_value(asdict(traced))
    if as_json:
        echo_json(result)
        return
    print_trace(result, count=documents, columns=column, console=make_console())
    echo(_about_losses(traced.checkpoint, step=step, wanted=losses))


def _about_losses(checkpoint: int | None, *, step: int, wanted: bool) -> str:
    """Return a line that states which model gave the losses."""
    if checkpoint is None:
        return "without losses: no checkpoint of this training is left" if wanted else "without losses: --no-losses"
    if checkpoint == step - 1:
        return f"losses of the update itself: the model after step {checkpoint}"
    return f"losses under the nearest checkpoint, after step {checkpoint}; the update's own is not kept"
