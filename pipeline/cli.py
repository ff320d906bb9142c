"""The `colophon` command. Modules that cost time are imported by the command that needs them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from pipeline import __version__
from pipeline.errors import ColophonError, ExitCode, UsageError

if TYPE_CHECKING:
    from pipeline.prepare import Prepared

app = typer.Typer(
    name="colophon",
    help="Annotate pretraining text with where it comes from and what it is, pack it in every layout, train on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_OUR_PACKAGES = ("annotators", "pipeline", "shards", "trainer")


class ExecutorName(str, Enum):
    """Where work runs."""

    RAY = "ray"
    INLINE = "inline"


RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of one that Colophon brings.")]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time, on Python 3.10 too
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, such as pack.sequence_length=1024."),
]
ExecutorOption = Annotated[ExecutorName, typer.Option(help="Run on Ray, or in this process.")]
RebuildOption = Annotated[
    bool, typer.Option("--rebuild", help="Redo what changed settings made stale, instead of stopping.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Stop at the first input that cannot be read.")]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the resolved recipe, the partitions and what is up to date; run nothing."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"colophon {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """The options of `colophon` itself; `main` looks for --debug on its own, to catch errors of parsing too."""


def main() -> None:
    """Entry point: runs a command, turns its errors into one line and an exit code."""
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to go on", ExitCode.FAILED)
    except Exception as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        _fail(*_explain(error))


def _explain(error: Exception) -> tuple[str, ExitCode]:
    if isinstance(error, ColophonError):
        return str(error), error.exit_code
    if isinstance(error, ValueError) and type(error).__module__.split(".")[0] in _OUR_PACKAGES:
        return str(error), ExitCode.USAGE
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line} (--debug shows where)", ExitCode.FAILED


def _fail(message: str, code: ExitCode) -> None:
    typer.echo(f"colophon: {message}", err=True)
    sys.exit(int(code))


@app.command()
def run(
    recipe: RecipeArgument,
    settings: SetOption = None,
    executor: ExecutorOption = ExecutorName.RAY,
    rebuild: RebuildOption = False,
    strict: StrictOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Annotate, tokenize and pack: whatever of it is not up to date.

    Example: `colophon run recipes/web.toml --set pack.sequence_length=1024`
    """
    _run(
        recipe,
        settings,
        ("annotate", "tokenize", "pack"),
        executor=executor,
        rebuild=rebuild,
        strict=strict,
        dry_run=dry_run,
    )


@app.command()
def annotate(
    recipe: RecipeArgument,
    settings: SetOption = None,
    executor: ExecutorOption = ExecutorName.RAY,
    rebuild: RebuildOption = False,
    strict: StrictOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Run the recipe's annotators over the input.

    Example: `colophon annotate recipes/web.toml`
    """
    _run(recipe, settings, ("annotate",), executor=executor, rebuild=rebuild, strict=strict, dry_run=dry_run)


@app.command()
def tokenize(
    recipe: RecipeArgument,
    settings: SetOption = None,
    executor: ExecutorOption = ExecutorName.RAY,
    rebuild: RebuildOption = False,
    strict: StrictOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Tokenize the input's texts, once for every layout.

    Example: `colophon tokenize recipes/web.toml`
    """
    _run(recipe, settings, ("tokenize",), executor=executor, rebuild=rebuild, strict=strict, dry_run=dry_run)


@app.command()
def pack(
    recipe: RecipeArgument,
    settings: SetOption = None,
    executor: ExecutorOption = ExecutorName.RAY,
    rebuild: RebuildOption = False,
    strict: StrictOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Pack tokens and annotations into training sequences, in every layout of the recipe.

    Example: `colophon pack recipes/web.toml --set layouts.prepend-url.dropout=0.2 --rebuild`
    """
    _run(recipe, settings, ("pack",), executor=executor, rebuild=rebuild, strict=strict, dry_run=dry_run)


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
    from pipeline.calibration import calibrated
    from pipeline.report import print_summary, summarize, write_summary
    from pipeline.run import Run

    console = _console()
    prepared = _prepare(recipe, settings)
    if "tokenize" in stages or "pack" in stages:
        _ = prepared.tokenizer  # fails now rather than after an hour of annotating
    prepared = calibrated(prepared, write=not dry_run and "annotate" in stages, log=_echo, rebuild=rebuild)
    if dry_run:
        from pipeline.dry_run import print_plan

        print_plan(prepared, stages=stages, console=console)
        return
    with _executor(executor, prepared) as (works, connect):
        result = Run(
            prepared,
            stages=stages,
            executor=works,
            console=console,
            connect=connect,
            rebuild=rebuild,
            strict=strict,
        ).execute()
    summary = summarize(result, store=prepared.store)
    write_summary(summary, store=prepared.store)
    print_summary(summary, result.manifest, console=console)
    raise typer.Exit(int(result.exit_code))


@app.command()
def train(
    recipe: RecipeArgument,
    name: Annotated[Optional[str], typer.Option(help="Which [train.NAME]; all of them if left out.")] = None,  # noqa: UP045
    settings: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier training of this name.")] = False,
) -> None:
    """Train a Llama-style decoder on packed shards.

    Example: `colophon train recipes/web.toml --name tiny --set train.tiny.steps=200`
    """
    from pipeline.recipe import load_recipe
    from trainer.loop import train as train_one

    loaded = load_recipe(recipe, overrides=settings or [])
    if not loaded.train:
        raise UsageError(f"{recipe}: has no [train.<name>] to train")
    if name is not None and name not in loaded.train:
        raise UsageError(f"{recipe}: no [train.{name}]; available: {', '.join(loaded.train)}")
    for each in [name] if name is not None else list(loaded.train):
        train_one(
            loaded.train[each],
            name=each,
            output=Path(loaded.output.path),
            resume=resume,
            overwrite=overwrite,
            report=_echo,
        )


@app.command()
def export(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Option(help="Directory for the Parquet files.")],
    settings: SetOption = None,
    executor: ExecutorOption = ExecutorName.INLINE,
) -> None:
    """Write the input with its annotations beside it, as Parquet for publishing.

    Example: `colophon export recipes/web.toml --to out/web-annotated`
    """
    from pipeline.calibration import calibrated
    from pipeline.export import ExportStage, export_tasks
    from pipeline.plan import Plan
    from pipeline.progress import watch

    console = _console()
    prepared = calibrated(_prepare(recipe, settings), write=False, log=_echo)
    tasks = export_tasks(Plan(prepared))
    to.mkdir(parents=True, exist_ok=True)
    stage = ExportStage(prepared.store, to.absolute(), prepared.recipe.input.columns)
    with _executor(executor, prepared) as (works, connect):
        connect()
        total = sum(task.partition.bytes for task in tasks)
        outcomes = works.run(stage, tasks)
        for outcome in watch(outcomes, title="export", total_bytes=total, total_tasks=len(tasks), console=console):
            if outcome.error is not None:
                raise ColophonError(f"export: {outcome.task.partition.source}: {outcome.error}")
    typer.echo(f"{len(tasks)} files in {to}")


@app.command()
def inspect(
    recipe: RecipeArgument,
    document: Annotated[Optional[int], typer.Option(help="Number of a document in the input, from 0.")] = None,  # noqa: UP045
    layout: Annotated[Optional[str], typer.Option(help="A layout, to see one of its sequences.")] = None,  # noqa: UP045
    sequence: Annotated[int, typer.Option(help="Number of the layout's sequence, from 0.")] = 0,
    tokens: Annotated[Optional[int], typer.Option(help="Show only so many tokens of the sequence.")] = None,  # noqa: UP045
    settings: SetOption = None,
) -> None:
    """Show a document's annotations, or a packed sequence with roles coloured and unpaid tokens dimmed.

    Example: `colophon inspect recipes/web.toml --layout prepend-url --sequence 3`
    """
    from pipeline.calibration import calibrated
    from pipeline.show import show_document, show_sequence
    from pipeline.verify import load_manifest

    console = _console()
    prepared = calibrated(_prepare(recipe, settings), write=False, log=_echo)
    manifest = load_manifest(prepared)
    if document is not None or layout is None:
        show_document(prepared, manifest, row=document or 0, console=console)
    if layout is not None:
        show_sequence(prepared, layout=layout, row=sequence, console=console, tokens=tokens)


@app.command()
def verify(recipe: RecipeArgument, settings: SetOption = None) -> None:
    """Check every file of a run against its commit record, and every packed file against the laws of its layout.

    Example: `colophon verify recipes/web.toml`
    """
    from pipeline.calibration import calibrated
    from pipeline.verify import load_manifest
    from pipeline.verify import verify as check

    prepared = calibrated(_prepare(recipe, settings), write=False, log=_echo)
    files = rows = bad = 0
    for record, found in check(prepared, load_manifest(prepared)):
        files, rows, bad = files + 1, rows + record.rows, bad + bool(found)
        for finding in found:
            typer.echo(f"{finding.path}: {finding.message}", err=True)
    if bad:
        raise ColophonError(f"{bad} of {files} files are not what they should be")
    typer.echo(f"{files} files, {rows:,} rows: all as recorded, all laws hold")


@app.command()
def submit(
    recipe: RecipeArgument,
    address: Annotated[str, typer.Option(help="The cluster's job server, http://HOST:8265.")],
    settings: SetOption = None,
    working_dir: Annotated[Path, typer.Option(help="Uploaded to the cluster; the run starts in it.")] = Path(),
    requirements: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Requirements file that pip installs for the job; default: constraints.txt where it is."),
    ] = None,
    no_install: Annotated[
        bool, typer.Option("--no-install", help="The cluster's image has the dependencies: install nothing.")
    ] = False,
    rebuild: RebuildOption = False,
    strict: StrictOption = False,
) -> None:
    """Send a run to a Ray cluster, follow its log, and end with its exit code.

    Example: `colophon submit recipes/web.toml --address http://127.0.0.1:8265`
    """
    from pipeline.submit import submit_run

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


@app.command("train-classifier")
def train_classifier(
    train: Annotated[list[str], typer.Option(help="Labelled files: Parquet or JSONL with a text and a label column.")],
    output: Annotated[Path, typer.Option(help="The model to write; its card goes to <output>.json.")],
    test: Annotated[Optional[list[str]], typer.Option(help="Labelled files to test on.")] = None,  # noqa: UP045
    text: Annotated[str, typer.Option(help="Name of the text column.")] = "text",
    label: Annotated[str, typer.Option(help="Name of the label column.")] = "label",
    normalize: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="KEY=VALUE", help="Text preparation, as in the annotator's [normalize]: lower=true, ..."),
    ] = None,
    setting: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="KEY=VALUE", help="A training setting: dim=64, epoch=10, word_ngrams=2, buckets=200000, ..."
        ),
    ] = None,
    autotune: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="SECONDS", help="Let fastText look for settings for so long."),
    ] = None,
) -> None:
    """Train a fastText classifier; print precision, recall, F1 and the confusion matrix on the test files.

    Example: `colophon train-classifier --train train.parquet --test test.parquet --output models/quality.bin`
    """
    from annotators.classifier_report import format_report
    from annotators.fasttext_training import DEFAULT_PREPARATION, TrainingSettings
    from annotators.fasttext_training import train_classifier as train_model
    from annotators.text_preparation import TextPreparation
    from pipeline.labelled import read_labelled
    from pipeline.recipe import parse_settings, validated

    changed = parse_settings("--normalize", normalize or [])
    preparation = {**DEFAULT_PREPARATION.model_dump(), **changed}
    settings = parse_settings("--setting", setting or [])
    if autotune is not None:
        settings["autotune_seconds"] = autotune
    settings_model = validated(TrainingSettings, settings, where="--setting")
    preparation_model = validated(TextPreparation, preparation, where="--normalize")
    texts, labels = read_labelled(train, text=text, label=label)
    trained = train_model(
        texts,
        labels,
        output=output,
        normalize=preparation_model,
        settings=settings_model,
        test=read_labelled(test, text=text, label=label) if test else None,
        report=_echo,
    )
    if trained.report is not None:
        typer.echo(format_report(trained.report))
    typer.echo(f"{trained.path}: {trained.path.stat().st_size / 1e6:.1f} MB; its card: {trained.path}.json")


@app.command("train-tokenizer")
def train_tokenizer(
    paths: Annotated[list[str], typer.Option("--input", help="Files, directories or globs, as in [input] paths.")],
    output: Annotated[Path, typer.Option(help="The .tiktoken file to write.")],
    vocabulary_size: Annotated[int, typer.Option(help="Tokens in the file, its 256 bytes among them.")] = 32_768,
    pattern: Annotated[str, typer.Option(help="Split pattern: a known name or a regular expression.")] = "o200k_base",
    text: Annotated[str, typer.Option(help="The input's text column.")] = "text",
    max_megabytes: Annotated[int, typer.Option(help="Stop reading after so much text.")] = 1000,
) -> None:
    """Train a byte-level BPE vocabulary on the input; tiktoken loads the file.

    Example: `colophon train-tokenizer --input "data/*.parquet" --vocabulary-size 32768 --output models/own.tiktoken`
    """
    from pipeline.labelled import read_texts
    from shards.tokenizer_training import train_tokenizer as train_vocabulary

    texts = read_texts(paths, text=text, max_bytes=max_megabytes * 1_000_000)
    trained = train_vocabulary(texts, vocabulary_size=vocabulary_size, output=output, pattern=pattern)
    typer.echo(
        f"{trained.path}: {trained.num_tokens:,} tokens, trained on {trained.num_texts:,} texts, "
        f"{trained.text_bytes / 1e6:.1f} MB"
    )
    if trained.num_tokens < vocabulary_size:
        typer.echo(f"the text has no pairs to merge for the other {vocabulary_size - trained.num_tokens:,} tokens")


@app.command("demo-corpus")
def demo_corpus(
    output: Annotated[Path, typer.Option(help="Directory for the shards and label files.")],
) -> None:
    """Write the demo's corpus: documentation of the installed packages as FineWeb-style shards, with labels.

    Example: `colophon demo-corpus --output out/demo`
    """
    from pipeline.demo_corpus import write_demo_corpus

    write_demo_corpus(output, report=_echo)


@app.command()
def recipes() -> None:
    """List the recipes that Colophon brings.

    Example: `colophon recipes`
    """
    from pipeline.recipe import shipped_recipes

    for name, path in shipped_recipes().items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        typer.echo(f"{name:<14} {first}")


def _prepare(recipe: str, settings: list[str] | None) -> Prepared:
    from pipeline.prepare import prepare
    from pipeline.recipe import load_recipe

    return prepare(load_recipe(recipe, overrides=settings or []), where=recipe)


class _executor:  # noqa: N801 - used as a function
    """The executor asked for, and what to call before its first task; leaves Ray at the end."""

    def __init__(self, name: ExecutorName, prepared: Prepared) -> None:
        self._name = name
        self._ray = prepared.recipe.ray
        self._connected = False

    def __enter__(self) -> tuple[Any, Callable[[], None]]:
        if self._name is ExecutorName.INLINE:
            from pipeline.work import InlineExecutor

            return InlineExecutor(), lambda: None
        from pipeline.on_ray import RayExecutor

        return RayExecutor(self._ray), self._connect

    def _connect(self) -> None:
        from pipeline.on_ray import connect

        connect(self._ray, log=_echo)
        self._connected = True

    def __exit__(self, *_: object) -> None:
        if self._connected:
            from pipeline.on_ray import disconnect

            disconnect()


def _console() -> Any:
    from rich.console import Console

    # Tables keep their width where the output is a file: 80 columns would fold them.
    # What stands in documents and file names is never markup.
    console = Console(markup=False, emoji=False)
    return console if console.is_terminal else Console(width=160, markup=False, emoji=False)


def _echo(line: str) -> None:
    typer.echo(line)
