"""Commands that study trained models: probes, attention, curves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colophon.pipeline.cli.options import (
    DocumentsOption,
    JsonOption,
    NumDocumentsOption,
    RecipeArgument,
    RunNameOption,
    SeedOption,
    SetOption,
    StepOption,
    file_name_part,
    local_file,
    recipe_and_output,
    result_name,
)
from colophon.pipeline.cli.terminal import echo, echo_json, make_console, progress_log
from colophon.pipeline.cli.trained_models import trained_model
from colophon.pipeline.errors import UsageError
from colophon.shards.common.durable import replace_text
from colophon.shards.common.output_paths import inside
from colophon.shards.stores.places import RunPlace, run_place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from colophon.trainer.inference.trained_model import TrainedModel

CropOption = Annotated[int, typer.Option(min=1, help="Text tokens to read at the beginning of each document.")]


def probe(
    call: typer.Context,
    recipe: RecipeArgument,
    name: RunNameOption,
    columns: Annotated[
        list[str], typer.Option("--column", help="Annotation column; its values are the classes. Repeatable.")
    ],
    documents: NumDocumentsOption = 2000,
    crop: CropOption = 256,
    layers: Annotated[str, typer.Option(help="Layers to probe: all, or numbers as in 0,6,12; 0 is the embedding.")] = (
        "all"
    ),
    context: Annotated[
        str, typer.Option(help="Context before the text: none, or empty for an empty wrapper.")
    ] = "none",
    split_by: Annotated[
        str,
        typer.Option(
            help="Column whose values never appear in two of training, validation and test; or document, to split by "
            "document."
        ),
    ] = "url_registered_domain",
    permutations: Annotated[
        int, typer.Option(min=1, help="Permutations of the labels for the control with shuffled labels.")
    ] = 5,
    output: DocumentsOption = None,
    step: StepOption = None,
    seed: SeedOption = 0,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit linear and MLP probes on the frozen states of every layer, beside controls.

    Example: `colophon probe recipes/web.toml --name plain --column topic --column quality`
    """
    loaded, own = recipe_and_output(recipe, settings)
    from colophon.pipeline.reports.study_tables import DOCUMENT_INTERVALS, probe_table
    from colophon.pipeline.reports.tables import print_table
    from colophon.trainer.probes.notes import notes
    from colophon.trainer.probes.probing import probe as study
    from colophon.trainer.probes.score_figure import draw_probes

    trained, tokenizer = trained_model(loaded, name, where=recipe, step=step)
    result_at = _result_path(own, name, "probe", call)
    report = study(
        trained,
        output=run_place(loaded.output.path),
        documents_output=output or _validation_output(trained),
        decode=tokenizer.decode,
        columns=list(dict.fromkeys(columns)),
        num_documents=documents,
        crop=crop,
        layers=_layers(layers),
        context=context,
        split_by=split_by,
        permutations=permutations,
        seed=seed,
        report=progress_log(as_json),
    )
    result = report.as_dict()
    if not as_json:
        for entry, column in zip(result["columns"], report.columns, strict=True):
            print_table(probe_table(entry), console=make_console())
            for line in notes(column):
                echo(line)
        for line in report.notes:
            echo(line)
        echo(DOCUMENT_INTERVALS)
    _warn_if_trained_on(run_place(report.output), trained, log=progress_log(as_json))
    _write_result(result_at, result, {"": lambda: draw_probes(report)}, as_json=as_json)


def attention(
    call: typer.Context,
    recipe: RecipeArgument,
    name: RunNameOption,
    layout: Annotated[
        str | None,
        typer.Option(
            help="Layout of the context before the text; the model must have been trained on it, in any phase.",
            show_default="the layout of validation",
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Annotation column; attention to meta tokens is compared between its values."),
    ] = None,
    documents: NumDocumentsOption = 200,
    crop: CropOption = 256,
    output: DocumentsOption = None,
    step: StepOption = None,
    seed: SeedOption = 0,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the attention from text to each part of the metadata, or to meta tokens, by layer and head.

    Example: `colophon attention recipes/web.toml --name prepend-url --documents 200`
    """
    loaded, own = recipe_and_output(recipe, settings)
    from colophon.pipeline.reports.study_tables import DOCUMENT_INTERVALS, attention_table, bins_table
    from colophon.pipeline.reports.tables import print_table
    from colophon.trainer.attention_maps.heat_maps import draw_attention, draw_bins
    from colophon.trainer.attention_maps.study import study_attention

    trained, tokenizer = trained_model(loaded, name, where=recipe, step=step)
    result_at = _result_path(own, name, "attention", call)
    report = study_attention(
        trained,
        output=run_place(loaded.output.path),
        documents_output=output or _validation_output(trained),
        tokenizer=tokenizer,
        layout=layout,
        column=column,
        num_documents=documents,
        crop=crop,
        seed=seed,
    )
    result = report.as_dict()
    if not as_json:
        print_table(attention_table(result), console=make_console())
        echo(DOCUMENT_INTERVALS)
    figures = {"": lambda: draw_attention(report)}
    bins = report.bins
    if bins is not None:
        if not as_json:
            print_table(bins_table(result["bins"]), console=make_console())
        title = f"{name}, step {report.step:,}, layout {report.layout}: distances of attention to meta tokens"
        figures["-bins"] = lambda: draw_bins(bins, title=title)
    _write_result(result_at, result, figures, as_json=as_json)


def plot(
    recipe: RecipeArgument,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name", help="Name of a training run. Repeatable.", show_default="every run that logged the quantity"
        ),
    ] = None,
    x: Annotated[str, typer.Option("--x", help="Horizontal axis: step, tokens, text_tokens or seconds.")] = "step",
    y: Annotated[
        str,
        typer.Option(
            "--y",
            help="Quantity of metrics.jsonl, such as text_loss, metadata_accuracy, lr or tokens_per_second; the error "
            "for an unknown quantity lists the available ones.",
        ),
    ] = "text_loss",
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="COLUMN",
            help="Column of the runs' group_by: a curve for each of its values, of text_loss or validation_text_loss.",
            show_default="one curve a run",
        ),
    ] = None,
    smooth: Annotated[
        float | None,
        typer.Option(
            help="Factor of the moving average, from 0 (none) to below 1.",
            show_default="0.9; less for runs of fewer than 400 steps; 0 for lr",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="File to write, .png or .svg; without a suffix both are written.",
            callback=local_file,
            show_default="training/ in the output, named after the quantity",
        ),
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plot curves of training runs, with validation losses as points.

    Example: `colophon plot recipes/web.toml --name tiny --name plain --x tokens --to curves.png`
    """
    _, output = recipe_and_output(recipe, settings)
    from colophon.trainer.plots.curve_figure import draw_curves
    from colophon.trainer.plots.curves import read_curves
    from colophon.trainer.plots.figures import save_figure

    figure = draw_curves(read_curves(output, names or None, x=x, y=y, by=by), x=x, y=y, smooth=smooth)
    if to is None:
        stem = y if by is None else f"{y}-by={file_name_part(by)}"
        to = output / "training" / stem
        _check_files(inside(output, "training", is_directory=True), stem)
    written = [str(path) for path in save_figure(figure, to)]
    if as_json:
        echo_json({"files": written})
    else:
        for path in written:
            echo(path)


def _validation_output(trained: TrainedModel) -> RunPlace | None:
    """Return the output with documents that a model was validated on, or None if it has none."""
    output = trained.config.validation_output
    return None if output is None else run_place(output)


def _warn_if_trained_on(documents: RunPlace, trained: TrainedModel, *, log: Callable[[str], None]) -> None:
    """Print a line if the model was trained on the documents that it is studied on."""
    if documents.resolve() in {layout.output.resolve() for layout in trained.layouts.values() if layout.output}:
        log(f"The model was trained on documents of {documents}; --output reads them from another run.")


def _layers(text: str) -> list[int] | None:
    """Parse `--layers`: None for `all`, else the numbers."""
    if text == "all":
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--layers: all, or numbers such as 0,6,12; got {text!r}") from None


def _result_path(output: Path, name: str, stem: str, call: typer.Context) -> Path:
    """Return the path of a result without suffix, after a check of the files that `_write_result` writes."""
    directory = inside(output, Path("training", name), is_directory=True)
    result = result_name(stem, call, exclude=["name"])
    _check_files(directory, result)
    return directory / result


def _check_files(directory: Path, name: str) -> None:
    """Check that a result and its figures are regular files or missing, see `output_paths.inside`."""
    for ending in (".json", ".png", ".svg", "-bins.png", "-bins.svg"):
        inside(directory, f"{name}{ending}")


def _write_result(to: Path, result: dict[str, Any], figures: dict[str, Callable[[], Figure]], *, as_json: bool) -> None:
    """Write `<to>.json`, and the figures as `<to><key>.png` and `.svg` if matplotlib is installed.

    Prints the paths, or with `as_json` the result with the paths as `files`.
    """
    from colophon.trainer.errors import TrainerError
    from colophon.trainer.plots.figures import save_figure

    _check_files(to.parent, to.name)
    path = to.with_name(f"{to.name}.json")
    replace_text(path, json.dumps(result, indent=1, allow_nan=False) + "\n")
    log, files = progress_log(as_json), [str(path)]
    try:
        for suffix, draw in figures.items():
            files += map(str, save_figure(draw(), to.with_name(to.name + suffix)))
    except TrainerError as error:
        log(f"no figure: {error}")
    if as_json:
        echo_json({**result, "files": files})
    else:
        for written in files:
            echo(written)
