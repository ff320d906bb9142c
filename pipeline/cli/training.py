"""Commands that train models and tokenizers, and the command that writes the demo's corpus."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colophon.pipeline.cli.options import (
    JsonOption,
    RecipeArgument,
    SetOption,
    local_only,
    training_root,
)
from colophon.pipeline.cli.terminal import (
    echo,
    echo_json,
    is_first_process,
    make_console,
    output_is_the_result,
    progress_log,
)
from colophon.pipeline.errors import StoppedError, UsageError
from colophon.shards.common.errors import ColophonError, did_you_mean
from colophon.shards.stores.places import run_place

if TYPE_CHECKING:
    from colophon.pipeline.recipe.schema import Recipe
    from colophon.trainer.config import TrainConfig
    from colophon.trainer.loop import TrainResult


def train(
    recipe: RecipeArgument,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Name of a run: a [train.NAME] of the recipe. Repeatable.", show_default="all, in order"),
    ] = None,
    settings: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the newest checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an earlier training run of this name.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the steps, tokens, sequences at once and memory of each run, side by side; write nothing.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a Llama-style decoder on packed shards.

    Example: `colophon train recipes/web.toml --name tiny --set train.tiny.steps=200`
    """
    from colophon.pipeline.recipe.loading import load_recipe
    from colophon.pipeline.runs.staleness import check_unchanged

    loaded = load_recipe(recipe, overrides=settings or [])
    names, root = _run_names(loaded, name or [], where=recipe), training_root(loaded, where=recipe)
    for each in names:
        check_unchanged(loaded, each, where=recipe)
    if dry_run:
        if is_first_process():
            _print_plans(loaded, names, root=root, as_json=as_json)
        return
    from colophon.trainer.loop import train as train_run  # it imports torch: a wrong recipe is reported before

    log = progress_log(as_json)
    output = run_place(loaded.output.path)
    train_one = partial(train_run, output=output, directory=root, resume=resume, overwrite=overwrite, report=log)
    results, failed = _train_in_order(loaded, names, train_one, log=log)
    if as_json and is_first_process():
        echo_json(results)
    if failed:
        line = f"failed: {', '.join(failed)}; the other {len(results)} of {len(names)} runs are complete. "
        advice = "After a change of the recipe, --resume continues from the checkpoints"
        raise ColophonError(line + advice if is_first_process() else "")


def _train_in_order(
    recipe: Recipe, names: Sequence[str], train_one: Callable[..., TrainResult], *, log: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Train the named runs; return the results of the complete ones as JSON, and the names of those that failed."""
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    for number, name in enumerate(names, 1):
        label = f"{name}: " if len(names) > 1 else ""
        if label and is_first_process():
            log(f"{label}{number} of {len(names)} runs")
        result = _trained(recipe.train[name], name, train_one, label=label, failed=failed, is_last=number == len(names))
        if result is None:
            failed.append(name)
        else:
            results.append(_as_dict(name, result))
    return results, failed


def _trained(
    config: TrainConfig,
    name: str,
    train_one: Callable[..., TrainResult],
    *,
    label: str,
    failed: Collection[str],
    is_last: bool,
) -> TrainResult | None:
    """Train one of several runs; return None where it failed and the later ones are trained.

    Args:
        config: its settings.
        name: its name.
        train_one: trains it.
        label: the beginning of its lines; empty if the command has one run.
        failed: the runs that failed before.
        is_last: whether the command has no later run.

    Raises:
        StoppedError: a signal ended the run, or arrived before the later ones.
    """
    advice = "--resume continues" if config.checkpoint_every else "no checkpoint: checkpoint_every is 0"
    also_failed = f"; failed before: {', '.join(failed)}" if failed else ""
    try:
        result = train_one(config, name=name)
    except KeyboardInterrupt:  # a second Ctrl-C, or one before the first step
        raise _stopped(f"{label}interrupted; {advice}{also_failed}", by="SIGINT") from None
    except _failures_of_one_run() as error:
        if not label:
            raise
        if is_first_process():
            echo(f"colophon: {label}{error}", err=True)
        return None
    if result.stopped_by is not None and not (is_last and result.state.step == result.steps):
        line = f"{label}stopped by {result.stopped_by} after step {result.state.step}; {advice}{also_failed}"
        raise _stopped(line, by=result.stopped_by)
    return result


def _print_plans(recipe: Recipe, names: Sequence[str], *, root: Path, as_json: bool) -> None:
    """Print what the named runs would do; start nothing."""
    from colophon.pipeline.reports.training_plans import print_training_plans
    from colophon.trainer.training_plan import plan_training

    output_is_the_result()
    output = run_place(recipe.output.path)
    plans = []
    for name in names:
        plan = plan_training(recipe.train[name], name=name, output=output, directory=root)
        plans.append({**asdict(plan), "directory": str(plan.directory)})
    if as_json:
        echo_json(plans)
    else:
        print_training_plans(plans, console=make_console())


def _as_dict(name: str, result: TrainResult) -> dict[str, Any]:
    """Return the end of a training run as JSON; a loss that is not finite is null."""
    numbers = {
        "loss": result.loss,
        "text_loss": result.text_loss,
        "validation_text_loss": result.validation_text_loss,
        "tokens_per_second": result.tokens_per_second,
    }
    return {
        "name": name,
        "directory": str(result.directory),
        "step": result.state.step,
        "parameters": result.num_parameters,
        "stopped_by": result.stopped_by,
        **{key: number if number is None or isfinite(number) else None for key, number in numbers.items()},
    }


def _failures_of_one_run() -> tuple[type[ColophonError], ...]:
    """Return the errors after which the later runs are trained.

    With several processes, too little memory on one of them leaves the others waiting, so it ends the command.
    """
    from colophon.trainer.errors import DivergedError, OutOfMemoryError
    from colophon.trainer.parallel import world_size

    return (DivergedError,) if world_size() > 1 else (DivergedError, OutOfMemoryError)


def _run_names(recipe: Recipe, chosen: Sequence[str], *, where: str) -> list[str]:
    """Return the chosen names, each once, or those of all training runs of the recipe without any.

    Raises:
        UsageError: the recipe has no such run.
    """
    if not recipe.train:
        raise UsageError(f"{where}: no [train.NAME] to train")
    for name in chosen:
        if name not in recipe.train:
            raise UsageError(
                f"{where}: no [train.{name}]; available: {', '.join(recipe.train)}{did_you_mean(name, recipe.train)}"
            )
    return list(dict.fromkeys(chosen)) or list(recipe.train)


def _stopped(line: str, *, by: str) -> StoppedError:
    """Return the error that ends the command after the signal `by`; only the first process prints its message."""
    return StoppedError(line if is_first_process() else "", signal_name=by)


def train_tokenizer(
    paths: Annotated[
        list[str], typer.Option("--input", help="File, directory or glob, as in [input] paths. Repeatable.")
    ],
    output: Annotated[Path, typer.Option(help="File to write, .tiktoken.", callback=local_only)],
    vocabulary_size: Annotated[int, typer.Option(help="Number of tokens, including the 256 single bytes.")] = 32_768,
    pattern: Annotated[
        str, typer.Option(help="Split pattern: the name of a known pattern, or a regular expression.")
    ] = "o200k_base",
    text: Annotated[str, typer.Option(help="Name of the text column.")] = "text",
    max_megabytes: Annotated[int, typer.Option(help="Amount of text to read, in MB; reading stops there.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Train a byte-level BPE vocabulary on the input; tiktoken loads the file.

    Example: `colophon train-tokenizer --input "data/*.parquet" --vocabulary-size 32768 --output models/own.tiktoken`
    """
    from colophon.pipeline.inputs.training_texts import read_texts
    from colophon.shards.tokenizer.training import train_tokenizer as train_vocabulary

    texts = read_texts(paths, text=text, max_bytes=max_megabytes * 1_000_000)
    trained = train_vocabulary(texts, vocabulary_size=vocabulary_size, output=output, pattern=pattern)
    if as_json:
        echo_json(
            {
                "path": str(trained.path),
                "tokens": trained.num_tokens,
                "texts": trained.num_texts,
                "text_bytes": trained.text_bytes,
            }
        )
        return
    echo(
        f"{trained.path}: {trained.num_tokens:,} tokens, trained on {trained.num_texts:,} texts, "
        f"{trained.text_bytes / 1e6:.1f} MB"
    )
    if trained.num_tokens < vocabulary_size:
        echo(f"no pairs are left to merge: {vocabulary_size - trained.num_tokens:,} tokens fewer than asked for")


def demo_corpus(
    output: Annotated[
        Path, typer.Option(help="Directory to write the shards and label files to.", callback=local_only)
    ],
    as_json: JsonOption = False,
) -> None:
    """Write the demo's corpus: documentation of the installed packages as FineWeb-style shards, with labels.

    Example: `colophon demo-corpus --output out/demo`
    """
    from colophon.pipeline.demo.corpus import write_demo_corpus

    corpus = write_demo_corpus(output, report=progress_log(as_json))
    if as_json:
        echo_json(
            {
                "path": str(corpus.output),
                "documents": corpus.num_documents,
                "validation_documents": corpus.num_validation_documents,
                "text_bytes": corpus.text_bytes,
                "topics": corpus.topics,
                "qualities": corpus.qualities,
            }
        )
