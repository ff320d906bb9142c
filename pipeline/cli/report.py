"""The command that writes the page of a run, or of the comparison of two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colophon.pipeline.cli.options import JsonOption, SetOption, local_file, local_only, tokenizer_of
from colophon.pipeline.cli.terminal import echo, echo_json, make_console
from colophon.pipeline.errors import UsageError
from colophon.shards.common.durable import replace_text
from colophon.shards.common.output_paths import entries, inside

if TYPE_CHECKING:
    from colophon.pipeline.recipe.schema import Recipe
    from colophon.pipeline.reports.page.page import Page
    from colophon.pipeline.reports.page.trainings import Trainings
    from colophon.shards.run_output import RunOutput
    from colophon.shards.tokenizer.tokenizer import Tokenizer

_QUANTITIES = ("text_loss", "validation_text_loss", "metadata_loss")
_INSTALLED_TOKENIZER = "tekken"


def report(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Recipe file, name of a bundled recipe, or the output directory of a run."),
    ],
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="OTHER", help="Second run: write what moved from RUN to it.", show_default="report RUN alone"
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="FILE",
            callback=local_file,
            help="File to write.",
            show_default="report/report.html in the run's output; of two runs report/comparison.html in the second's",
        ),
    ] = None,
    charts: Annotated[
        Path | None,
        typer.Option(
            "--charts",
            metavar="DIR",
            callback=local_only,
            help="Directory to write each chart to, as PNG and SVG.",
            show_default="none is written",
        ),
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page, which loads nothing, about a run: distributions, layouts, sequences, times, provenance.

    Of two runs: settings, distributions, labels of documents and tokens that differ, on the terminal too.

    Example: `colophon report recipes/web.toml`
    """
    if charts is not None and charts.exists() and not charts.is_dir():
        raise UsageError(f"--charts: {charts} exists and is not a directory")
    if other is not None:
        _compare(recipe, other, to=to, charts=charts, settings=settings, as_json=as_json)
        return
    run, loaded = opened("report", recipe, settings)
    from colophon.pipeline.reports.page.page import REPORT, page_of

    load = tokenizer_loader(run, loaded, where=recipe)
    page = page_of(run, load_tokenizer=load, trainings=_trainings(run.directory))
    path = inside(run.directory, REPORT) if to is None else to
    written = _written(page, path, charts=charts)
    if as_json:
        echo_json(written)
    else:
        _echo_written(written, charts=charts)


def _compare(
    first: str, second: str, *, to: Path | None, charts: Path | None, settings: list[str] | None, as_json: bool
) -> None:
    """Compare two runs, print the differences, and write their page."""
    if settings:
        raise UsageError("report: --set changes one recipe: name the output directories of the two runs")
    (before, _), (after, _) = opened("report", first, None), opened("report", second, None)
    if before.path.resolve() == after.path.resolve():
        raise UsageError(f"report: {first} and {second} are the same run, {before.path}")
    from colophon.pipeline.reports.comparison.comparison import compare
    from colophon.pipeline.reports.comparison.page import COMPARISON, comparison_page
    from colophon.pipeline.reports.comparison.tables import print_comparison

    found = compare(before, after)
    page = comparison_page(found)
    path = inside(after.directory, COMPARISON) if to is None else to
    written = _written(page, path, charts=charts)
    if as_json:
        echo_json({**written, **found.as_dict()})
    else:
        print_comparison(found, console=make_console())
        _echo_written(written, charts=charts)


def _written(page: Page, path: Path, *, charts: Path | None) -> dict[str, Any]:
    """Write a page, and its charts into a directory; return what was written, as a JSON value."""
    from colophon.pipeline.reports.page.images import image_paths, write_images

    images = [] if charts is None else image_paths(page.charts, charts)
    replace_text(path, page.text)
    if images:
        write_images(page.charts, images)
    return {
        "path": str(path),
        "bytes": len(page.text.encode()),
        "documents": page.documents,
        "charts": len(page.charts),
        "sections": page.sections,
        "images": [str(image) for pair in images for image in pair],
    }


def _echo_written(written: dict[str, Any], *, charts: Path | None) -> None:
    size = f"{written['documents']:,} documents, {written['charts']} charts, {written['bytes'] / 1e6:.1f} MB"
    echo(f"{written['path']}: {size}")
    if charts is not None:
        echo(f"{charts}: {written['charts']} charts, each as PNG and SVG")


def opened(command: str, recipe: str, settings: list[str] | None) -> tuple[RunOutput, Recipe | None]:
    """The run of a recipe and the recipe, or the run in an output directory and None.

    Raises:
        UsageError: the recipe has a mistake, or `--set` is used with a directory.
        ShardError: there is no finished run.
    """
    from colophon.pipeline.recipe.loading import load_recipe
    from colophon.shards.run_output import open_run

    if not Path(recipe).is_dir():
        loaded = load_recipe(recipe, overrides=settings or [])
        return open_run(loaded.output.path), loaded
    if settings:
        raise UsageError(f"{command}: --set changes a recipe, and {recipe} is a directory")
    return open_run(recipe), None


def tokenizer_loader(run: RunOutput, recipe: Recipe | None, *, where: str) -> Callable[[], Tokenizer]:
    """A function that loads the tokenizer of a recipe, or that of the manifest if there is no recipe."""

    def load() -> Tokenizer:
        if recipe is None:
            return _recorded_tokenizer(run)
        return tokenizer_of(recipe, where=where, num_meta_tokens=_num_meta_tokens(run))

    return load


def _recorded_tokenizer(run: RunOutput) -> Tokenizer:
    """The tokenizer that the manifest names, if loading it reads nothing but local files.

    A manifest may come from others; it must not choose what is downloaded.

    Raises:
        UsageError: the manifest names none, or one that would be downloaded.
        TokenizerError: it cannot be loaded.
    """
    from pydantic import ValidationError

    from colophon.shards.tokenizer.tokenizer import TokenizerConfig, load_tokenizer

    try:
        config = TokenizerConfig.model_validate(run.manifest.recipe.get("tokenizer"))
    except ValidationError:
        raise UsageError("the manifest has no tokenizer that this Colophon knows") from None
    if config.name not in (None, _INSTALLED_TOKENIZER):
        raise UsageError(f"tokenizer {config.name} may have to be downloaded: name the recipe in place of its output")
    return load_tokenizer(config, num_meta_tokens=_num_meta_tokens(run))


def _num_meta_tokens(run: RunOutput) -> int:
    """The most meta tokens of the run's layouts."""
    layouts = [packed.settings.get("layout") for packed in run.manifest.layouts.values()]
    numbers: list[Any] = [layout.get("num_meta_tokens") for layout in layouts if isinstance(layout, dict)]
    return max((number for number in numbers if type(number) is int), default=0)


def _trainings(output: Path) -> Trainings:
    """The curves and evaluations under `output`. Damaged files and quantities that no training logged are left out."""
    from colophon.pipeline.reports.page.trainings import Trainings
    from colophon.shards.common.errors import DamagedFileError
    from colophon.shards.common.state_files import read_state
    from colophon.trainer.errors import TrainerError
    from colophon.trainer.plots.curves import Y_LABELS, read_curves, training_runs

    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for quantity in _QUANTITIES:
        try:
            found = read_curves(output, None, y=quantity)
        except TrainerError:
            continue
        named = {}
        for one in found:
            x, y = (one.validation_x, one.validation_y) if quantity.startswith("validation") else (one.x, one.y)
            if len(x):
                named[one.name] = list(zip(x.tolist(), y.tolist(), strict=True))
        if named:
            curves[Y_LABELS[quantity]] = named
    evaluations: dict[str, Any] = {}
    for name in training_runs(output):
        for path in sorted(entries(output, Path("training", name))):
            if path.name.startswith("evaluation") and path.suffix == ".json":
                try:
                    evaluations[f"{name}/{path.name}"] = read_state(path, remedy="") or {}
                except DamagedFileError:
                    evaluations[f"{name}/{path.name}"] = {}
    return Trainings(curves=curves, evaluations=evaluations)
