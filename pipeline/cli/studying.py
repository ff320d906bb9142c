"""Commands that study trained models: probes, attention, curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from pipeline.cli.options import RecipeArgument, SetOption
from pipeline.errors import UsageError

NamesOption = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time, on Python 3.10 too
    typer.Option("--name", help="A training run; again for more. All that have metrics if left out."),
]


def plot(
    recipe: RecipeArgument,
    names: NamesOption = None,
    x: Annotated[str, typer.Option("--x", help="step, tokens, text_tokens or seconds.")] = "step",
    y: Annotated[
        str,
        typer.Option(
            "--y",
            help="text_loss, validation_text_loss, loss, metadata_loss, lr, grad_norm or tokens_per_second.",
        ),
    ] = "text_loss",
    smooth: Annotated[float, typer.Option(help="Factor of the moving average, from 0 (none) to below 1.")] = 0.9,
    to: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="The file, .png or .svg; both without a suffix. In the output's training/ directory if left out."
        ),
    ] = None,
    settings: SetOption = None,
) -> None:
    """Draw curves of training runs; validation losses as points.

    Example: `colophon plot recipes/web.toml --name tiny --name plain --x tokens --to curves.png`
    """
    from trainer.after.figures import save_figure
    from trainer.after.plotting import draw_curves, read_curve, training_runs

    output = _local_output(recipe, settings)
    wanted = list(dict.fromkeys(names or training_runs(output)))
    if not wanted:
        raise UsageError(f"{output}: no training run has metrics yet; colophon train makes them")
    figure = draw_curves([read_curve(output, name, x=x, y=y) for name in wanted], x=x, y=y, smooth=smooth)
    for path in save_figure(figure, output / "training" / y if to is None else to):
        typer.echo(path)


def _local_output(recipe: str, settings: list[str] | None) -> Path:
    from pipeline.recipe import load_recipe

    path = load_recipe(recipe, overrides=settings or []).output.path
    if "://" in path:
        raise UsageError(f"{recipe}: output.path {path}: trained models lie in a local directory")
    return Path(path)
