"""Commands that write nothing: inspect, verify and status of a run, and the list of annotators."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from colophon.pipeline.cli.options import ExecutorOption, JsonOption, RecipeArgument, SetOption, load_and_check
from colophon.pipeline.cli.terminal import echo, echo_json, make_console, output_is_the_result, progress_log
from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.session import ExecutorName, ExecutorSession
from colophon.shards.common.errors import ColophonError


def inspect(
    recipe: RecipeArgument,
    document: Annotated[
        int | None, typer.Option(help="Number of a document in the input, from 0.", show_default="0, without --layout")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Layout to show a packed sequence of.", show_default="no sequence is shown")
    ] = None,
    sequence: Annotated[
        int | None, typer.Option(help="Number of the layout's sequence, from 0.", show_default="0")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=0, help="Number of tokens of the sequence to show.", show_default="all")
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a document's annotations, or a packed sequence with roles coloured and tokens without loss weight dimmed.

    Example: `colophon inspect recipes/web.toml --layout prepend-url --sequence 3`
    """
    from colophon.pipeline.reports.inspection import document_at, sequence_at, show_document, show_sequence
    from colophon.pipeline.runs.calibration import calibrated

    output_is_the_result()
    resolved = calibrated(load_and_check(recipe, settings), write=False, log=progress_log(as_json))
    if layout is None and (sequence is not None or tokens is not None):
        known = ", ".join(resolved.recipe.layouts)
        raise UsageError(f"--sequence and --tokens are of a layout. Add --layout; available: {known}")
    manifest = resolved.finished_manifest()
    found: dict[str, Any] = {}
    if document is not None or layout is None:
        found["document"] = document_at(resolved, manifest, row=document or 0)
    if layout is not None:
        found["sequence"] = sequence_at(resolved, layout=layout, row=sequence or 0, tokens=tokens)
    if as_json:
        echo_json(found)
        return
    if "document" in found:
        show_document(found["document"], console=make_console())
    if "sequence" in found:
        show_sequence(found["sequence"], console=make_console())


def verify(
    recipe: RecipeArgument,
    settings: SetOption = None,
    inputs: Annotated[
        bool, typer.Option("--inputs", help="Read the input again and compare its content with the records' hashes.")
    ] = False,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Annotate, tokenize and pack every partition again and compare. Takes as long as the run."
        ),
    ] = False,
    executor: ExecutorOption = ExecutorName.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Check a run's files, records, manifest, settings and input against each other, and packed files against the laws.

    Example: `colophon verify recipes/web.toml --deep --inputs`
    """
    from colophon.pipeline.runs.calibration import calibrated
    from colophon.pipeline.verification.verification import Verification

    log = progress_log(as_json)
    resolved = calibrated(load_and_check(recipe, settings), write=False, log=log)
    found = []
    with ExecutorSession(executor, resolved.recipe.ray, log=log) as session:
        verification = Verification(
            resolved, read_inputs=inputs, deep=deep, executor=session.executor, connect=session.connect
        )
        for finding in verification.findings():
            found.append({"path": str(finding.path), "message": finding.message})
            echo(f"{finding.path}: {finding.message}", err=True)
    if as_json:
        files, rows = verification.files, verification.rows
        echo_json({"files": files, "rows": rows, "findings": found, "notes": list(verification.notes)})
    else:
        for note in verification.notes:
            echo(note)
    if found:
        things = "1 finding" if len(found) == 1 else f"{len(found):,} findings"
        raise ColophonError(f"{things} in {verification.files:,} files, their records, settings and input")
    if not as_json:
        echo(
            f"{verification.files:,} files, {verification.rows:,} rows: all match their records, "
            "all laws of the layouts hold"
        )


def status(
    recipe: RecipeArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which partitions are done, stale, running, quarantined or missing, without starting any work.

    Example: `colophon status recipes/web.toml`
    """
    from colophon.pipeline.runs.calibration import calibrated
    from colophon.pipeline.runs.status import print_status, status_of

    output_is_the_result()
    log = progress_log(as_json)
    run_status = status_of(calibrated(load_and_check(recipe, settings), write=False, log=log))
    if as_json:
        echo_json(run_status.as_dict())
    else:
        print_status(run_status, console=make_console())


def annotators(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Recipe whose plugins are listed too.", show_default="built-in and installed ones alone"),
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the annotators, the columns that they read and write, and where they come from.

    Example: `colophon annotators recipes/web.toml`
    """
    from colophon.annotators.registry import offers
    from colophon.pipeline.recipe.loading import recipe_offers
    from colophon.pipeline.reports.annotator_list import listed, print_annotators

    output_is_the_result()
    among = offers() if recipe is None else recipe_offers(recipe, overrides=settings or [])
    found = list(listed(among))
    if as_json:
        echo_json([annotator.as_dict() for annotator in found])
    else:
        print_annotators(found, console=make_console())
