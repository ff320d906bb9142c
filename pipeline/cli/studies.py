"""Commands that study trained models: probes, attention, curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from colophon.pipeline.cli.options import (
    RecipeArgument,
    SetOption,
    StepOption,
    echo,
    make_console,
    recipe_and_output,
    result_name,
    tokenizer_of,
    write_whole,
)
from colophon.pipeline.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NamesOption = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time, on Python 3.10 too
    typer.Option("--name", help="A training run; again for more. All that logged the quantity if left out."),
]

NameOption = Annotated[str, typer.Option("--name", help="A [train.NAME] that has been trained.")]
DocumentsOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--output",
        metavar="DIRECTORY",
        help="Output of another run whose documents are read. Left out: the model's validation_output where it has "
        "one, else the recipe's own output, which it was trained on.",
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of the documents that are drawn, and of all that is random.")]


def probe(
    call: typer.Context,
    recipe: RecipeArgument,
    name: NameOption,
    columns: Annotated[
        list[str], typer.Option("--column", help="An annotation column whose values are the classes; again for more.")
    ],
    documents: Annotated[int, typer.Option(min=1, help="How many documents to draw.")] = 2000,
    crop: Annotated[int, typer.Option(min=1, help="First text tokens of a document that are read.")] = 256,
    layers: Annotated[str, typer.Option(help="all, or numbers such as 0,6,12; 0 is the embedding.")] = "all",
    context: Annotated[
        str, typer.Option(help="Before the text: none, or empty for an empty wrapper where the layout has one.")
    ] = "none",
    split_by: Annotated[
        str,
        typer.Option(help="Column whose values are never in two of training, validation and test; or document."),
    ] = "url_registered_domain",
    output: DocumentsOption = None,
    step: StepOption = None,
    seed: SeedOption = 0,
    settings: SetOption = None,
) -> None:
    """Fit linear and MLP probes on frozen states of every layer, beside controls: what does a model know of a document?

    Example: `colophon probe recipes/web.toml --name plain --column topic --column quality`
    """
    from colophon.pipeline.errors import printable
    from colophon.pipeline.reports.study_tables import probe_table
    from colophon.trainer.inference.trained_model import load_trained
    from colophon.trainer.probes.notes import notes
    from colophon.trainer.probes.probing import probe as study
    from colophon.trainer.probes.report import draw_probes

    loaded, own = recipe_and_output(recipe, settings)
    trained = load_trained(own, name, step=step)
    report = study(
        trained,
        output=own,
        documents_output=output or _held_out(trained),
        decode=tokenizer_of(loaded, where=recipe).decode,
        columns=list(dict.fromkeys(columns)),
        num_documents=documents,
        crop=crop,
        layers=_layers(layers),
        context=context,
        split_by=split_by,
        seed=seed,
        report=echo,
    )
    found = report.as_dict()
    for shown, column in zip(found["columns"], report.columns, strict=True):
        make_console().print(probe_table(shown))
        for line in notes(column):
            echo(printable(line))
    for line in report.notes:
        echo(printable(line))
    _tell_if_trained_on(Path(report.output), trained, own=own)
    _write(
        own / "training" / name / result_name("probe", call, leave_out=["name"]),
        found,
        {"": lambda: draw_probes(report)},
    )


def attention(
    call: typer.Context,
    recipe: RecipeArgument,
    name: NameOption,
    layout: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="What stands before the text: a layout that the model was trained on, in any of its phases; the one "
            "that it was validated on if left out."
        ),
    ] = None,
    column: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="For meta tokens: an annotation column by whose values their attention is compared."),
    ] = None,
    documents: Annotated[int, typer.Option(min=1, help="How many documents to draw.")] = 200,
    crop: Annotated[int, typer.Option(min=1, help="First text tokens of a document that are read.")] = 256,
    output: DocumentsOption = None,
    step: StepOption = None,
    seed: SeedOption = 0,
    settings: SetOption = None,
) -> None:
    """Measure the attention that text pays to each part of the metadata, or to meta tokens, by layer and head.

    Example: `colophon attention recipes/web.toml --name prepend-url --documents 200`
    """
    from colophon.pipeline.reports.study_tables import attention_table, bins_table
    from colophon.trainer.attention_maps.bins import draw_bins
    from colophon.trainer.attention_maps.maps import draw_attention, study_attention
    from colophon.trainer.inference.trained_model import load_trained

    loaded, own = recipe_and_output(recipe, settings)
    trained = load_trained(own, name, step=step)
    report = study_attention(
        trained,
        output=own,
        documents_output=output or _held_out(trained),
        tokenizer=tokenizer_of(loaded, where=recipe),
        layout=layout,
        column=column,
        num_documents=documents,
        crop=crop,
        seed=seed,
    )
    found = report.as_dict()
    make_console().print(attention_table(found))
    figures = {"": lambda: draw_attention(report)}
    bins = report.bins
    if bins is not None:
        make_console().print(bins_table(found["bins"]))
        title = f"{name}, step {report.step:,}, layout {report.layout}: distances of attention to meta tokens"
        figures["-bins"] = lambda: draw_bins(bins, title=title)
    _write(own / "training" / name / result_name("attention", call, leave_out=["name"]), found, figures)


def plot(
    recipe: RecipeArgument,
    names: NamesOption = None,
    x: Annotated[str, typer.Option("--x", help="step, tokens, text_tokens or seconds.")] = "step",
    y: Annotated[
        str,
        typer.Option(
            "--y",
            help="A quantity of metrics.jsonl, such as text_loss, metadata_accuracy, lr or tokens_per_second; an "
            "unknown one is answered with all there are.",
        ),
    ] = "text_loss",
    smooth: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="Factor of the moving average, from 0 (none) to below 1; if left out 0.9, less for runs of fewer than "
            "400 steps, and none for lr."
        ),
    ] = None,
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
    from colophon.trainer.plots.curves import draw_curves, read_curves
    from colophon.trainer.plots.figures import save_figure

    _, output = recipe_and_output(recipe, settings)
    figure = draw_curves(read_curves(output, names or None, x=x, y=y), x=x, y=y, smooth=smooth)
    for path in save_figure(figure, output / "training" / y if to is None else to):
        typer.echo(path)


def _held_out(trained: Any) -> Path | None:
    """Where documents lie that a model was not trained on, if it names them."""
    place = trained.config.validation_output
    return None if place is None else Path(place)


def _tell_if_trained_on(documents: Path, trained: Any, *, own: Path) -> None:
    """Say so where a model has seen the documents that it is studied on."""
    from colophon.trainer.inference.contexts import outputs_by_layout

    if documents.resolve() in {place.resolve() for place in outputs_by_layout(trained.config, output=own).values()}:
        echo(f"The model was trained on documents of {documents}; --output names another run's.")


def _layers(text: str) -> list[int] | None:
    if text == "all":
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--layers: all, or numbers such as 0,6,12; got {text!r}") from None


def _write(to: Path, found: dict[str, Any], figures: dict[str, Callable[[], Figure]]) -> None:
    """Write `<to>.json`, and the figures beside it where matplotlib is installed; a figure's key ends its name."""
    import json

    from colophon.trainer.errors import TrainerError
    from colophon.trainer.plots.figures import save_figure

    path = to.with_name(f"{to.name}.json")
    write_whole(path, json.dumps(found, indent=1, allow_nan=False) + "\n")
    typer.echo(path)
    try:
        for suffix, draw in figures.items():
            for written in save_figure(draw(), to.with_name(to.name + suffix)):
                typer.echo(written)
    except TrainerError as error:
        typer.echo(f"no figure: {error}")
