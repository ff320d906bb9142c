"""The `colophon` command. Each command imports the modules that are slow to import itself."""

from __future__ import annotations

import atexit
import gc
import os
import re
import sys
import textwrap
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from colophon import __version__
from colophon.pipeline.cli import (
    classifiers,
    conversion,
    distillation,
    doctor,
    duplicates,
    evaluation,
    exports,
    inspection,
    report,
    stages,
    starting,
    studies,
    tracing,
    training,
    view,
)
from colophon.pipeline.cli.recipe_command import with_plugins_option
from colophon.pipeline.cli.terminal import echo, guarded_streams
from colophon.pipeline.errors import UsageError, one_line, system_error
from colophon.shards.common.errors import ColophonError, ExitCode, panics_as_errors, short_reason
from colophon.shards.common.url_secrets import without_secrets


class _Commands(TyperGroup):
    """The commands. An error of the parser is one line, as all others are, in place of its box."""

    def make_context(self, info_name: str | None, args: list[str], *arguments: Any, **options: Any) -> Any:
        """The context of a call, see click."""
        if not args:  # its "error" prints the help
            return super().make_context(info_name, args, *arguments, **options)
        try:
            return super().make_context(info_name, args, *arguments, **options)
        except _ParserError as error:
            raise UsageError(_parser_line(error, None)) from None

    def invoke(self, context: Any) -> Any:
        """The result of the call, see click."""
        try:
            return super().invoke(context)
        except _ParserError as error:
            raise UsageError(_parser_line(error, context.invoked_subcommand)) from None
        except EOFError as error:  # the parser would take it for Ctrl-D at a prompt
            raise RuntimeError(short_reason(error).removesuffix(": ")) from error


_ParserError: type[Any] = typer.BadParameter.__mro__[1]
"""The base class of all errors of the parser: click's `UsageError`, or that of typer's copy of click."""
_EXTRA = re.compile(r"Got unexpected extra argument(?:\(s\)|s)? \((?P<words>.*)\)")
_LONGEST_EXTRA = 200


def _parser_line(error: Any, command: str | None) -> str:
    """The message of an error of the parser: `convert: --to: 'foo' is not one of 'megatron', 'mds', ...`."""
    place = f"{command}: " if command else ""
    message = without_secrets(error.message)
    if message and getattr(error, "param", None) is not None:
        reason = _reason(error) or message.rstrip(".")
        return f"{place}{error.param.opts[0]}: {reason}"
    message = without_secrets(" ".join(error.format_message().split())).rstrip(".")
    if extra := _EXTRA.match(message):
        words = extra["words"].split()
        is_glob = any(os.path.exists(word) for word in words)  # noqa: PTH110 (pathlib raises for a very long word)
        remedy = ". If they are the files of one pattern, quote the pattern" if is_glob else ""
        message = f"{textwrap.shorten(message, _LONGEST_EXTRA, placeholder=' ...)')}{remedy}"
    call = f"colophon {command}" if command else "colophon"
    end = "" if message.endswith("?") else "."
    return f"{place}{message[:1].lower()}{message[1:]}{end} See `{call} --help`"


def _reason(error: Any) -> str:
    """The message on a value that is of a different type or out of range; empty for other errors."""
    from pydantic import ValidationError

    from colophon.pipeline.recipe.error_messages import value_problem

    is_a_value = isinstance(error.__cause__, ValidationError)
    return without_secrets(value_problem(error.__cause__)).rstrip(".") if is_a_value else ""


app = typer.Typer(
    name="colophon",
    cls=_Commands,
    help="Annotate pretraining text with where it comes from and what it is, pack it in every layout, train on it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    starting.init,
    duplicates.duplicates,
    stages.run,
    stages.annotate,
    stages.tokenize,
    stages.pack,
    stages.finish,
    training.train,
    evaluation.evaluate,
    evaluation.generate,
    exports.export_model,
    inspection.inspect,
    inspection.status,
    inspection.verify,
    report.report,
    view.view,
    exports.export,
    conversion.convert,
    stages.submit,
    studies.probe,
    studies.attention,
    studies.plot,
    tracing.trace,
    classifiers.train_classifier,
    distillation.distill,
    training.train_tokenizer,
    training.demo_corpus,
    starting.recipes,
    inspection.annotators,
    doctor.doctor,
):
    app.command(command.__name__.replace("_", "-"))(with_plugins_option(command))
# Options that are not in its signature are passed to lm_eval.
app.command("lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(exports.lm_eval)


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"colophon {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Declare the options of `colophon` itself; `main` reads --debug from `sys.argv`, before options are parsed."""


def main() -> None:
    """Run the command of `sys.argv`; print an error as one line and end with its exit code."""
    # The interpreter searches all objects for cycles when it ends, several times: 0.25 s that a command does not need.
    atexit.register(gc.freeze)
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - a container's user whom the system does not know
        os.environ["HOME"] = "/nonexistent"  # libraries need a name, not the directory
    with guarded_streams():
        _run()


def _run() -> None:
    try:
        with panics_as_errors():
            app(standalone_mode=True)
    except SystemExit as ended:
        if ended.code == ExitCode.INTERRUPTED:  # typer's exit code after Ctrl-C
            echo("colophon: interrupted; run the same command again to resume", err=True)
        raise
    except Exception as error:
        if "--debug" in sys.argv:
            echo(traceback.format_exc(), err=True)
        message, code = _explain(error)
        _fail(message, code)


def _explain(error: Exception) -> tuple[str, ExitCode]:
    """Return the line to print for an error and the exit code to end with."""
    error = system_error(error) or error
    if isinstance(error, ColophonError):
        return str(error), error.exit_code
    kind, line = type(error).__name__, one_line(error)
    return (
        f"{kind if line == kind else f'{kind}: {line}'} (`colophon --debug ...` prints the traceback)",
        ExitCode.FAILED,
    )


def _fail(message: str, code: ExitCode) -> None:
    if message:
        line = message.replace("\n", "\\n")
        echo(f"colophon: {line}", err=True)
    sys.exit(int(code))
