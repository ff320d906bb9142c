"""The `colophon` command. Modules that cost time are imported by the command that needs them."""

from __future__ import annotations

import atexit
import gc
import sys
import traceback
from typing import Annotated

import typer

from colophon import __version__
from colophon.pipeline.cli import evaluation, exports, inspection, stages, studies, training
from colophon.pipeline.errors import one_line, without_secrets
from colophon.shards.common.errors import ColophonError, ExitCode

app = typer.Typer(
    name="colophon",
    help="Annotate pretraining text with where it comes from and what it is, pack it in every layout, train on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    stages.run,
    stages.annotate,
    stages.tokenize,
    stages.pack,
    training.train,
    evaluation.evaluate,
    evaluation.generate,
    exports.export_model,
    inspection.inspect,
    inspection.status,
    inspection.verify,
    exports.export,
    stages.submit,
    studies.probe,
    studies.attention,
    studies.plot,
    training.train_classifier,
    training.train_tokenizer,
    training.demo_corpus,
    inspection.recipes,
):
    app.command(command.__name__.replace("_", "-"))(command)
# What it does not know is lm_eval's.
app.command("lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(exports.lm_eval)


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
    # An ending interpreter looks for cycles among all objects of all modules, several times: 0.25 s for nothing.
    atexit.register(gc.freeze)
    try:
        app(standalone_mode=True)
    except SystemExit as ended:
        if ended.code == ExitCode.INTERRUPTED:  # what typer ends with after Ctrl-C, as shells do
            typer.echo("colophon: interrupted; run the same command again to go on", err=True)
        raise
    except Exception as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        message, code = _explain(error)
        _fail(without_secrets(message), code)


def _explain(error: Exception) -> tuple[str, ExitCode]:
    if isinstance(error, ColophonError):
        return str(error), error.exit_code
    kind, line = type(error).__name__, one_line(error)
    return f"{kind if line == kind else f'{kind}: {line}'} (--debug shows where)", ExitCode.FAILED


def _fail(message: str, code: ExitCode) -> None:
    if message:
        typer.echo(f"colophon: {message}", err=True)
    sys.exit(int(code))
