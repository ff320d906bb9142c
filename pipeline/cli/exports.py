"""Commands that hand trained models on: to Hugging Face's libraries, and to the tasks of lm_eval."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from colophon.pipeline.cli.options import (
    ExecutorName,
    ExecutorOption,
    RecipeArgument,
    SetOption,
    StepOption,
    echo,
    executor_of,
    fields_of,
    load_and_check,
    make_console,
    recipe_and_output,
    tokenizer_of,
)
from colophon.pipeline.errors import UsageError
from colophon.shards.common.errors import ColophonError


class _Dtype(str, Enum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def export_model(
    recipe: RecipeArgument,
    name: Annotated[str, typer.Option(help="A [train.NAME] that has been trained.")],
    to: Annotated[Path, typer.Option(help="A directory that does not exist yet, or is empty.")],
    step: StepOption = None,
    dtype: Annotated[_Dtype, typer.Option(help="Of the weights in the file.")] = _Dtype.FLOAT32,
    settings: SetOption = None,
) -> None:
    """Write a trained model and its tokenizer as a directory that Hugging Face transformers loads.

    Example: `colophon export-model recipes/web.toml --name prepend-url --to out/web-model`
    """
    from colophon.trainer.export.model import export_run

    loaded, own = recipe_and_output(recipe, settings)
    tokenizer = tokenizer_of(loaded, where=recipe)
    exported = export_run(own, name, tokenizer=tokenizer, to=to, step=step, dtype=dtype.value)
    typer.echo(f"{to}: {exported.architecture}, {exported.num_ids:,} ids, step {exported.step}")
    if exported.masked_ids:
        typer.echo(
            f"{len(exported.masked_ids)} ids that were masked in training are not in transformers: see its README"
        )
    different = len(exported.tokenizer.different)
    if different:
        typer.echo(f"{different} hard texts with names of special tokens have other ids than in training")


def lm_eval(
    arguments: typer.Context,
    model: Annotated[Path, typer.Argument(help="A directory that export-model wrote.")],
    tasks: Annotated[str, typer.Option(help="Tasks of lm_eval, or files of your own, with commas between them.")],
    context: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="What stands before every text: none, empty, meta_tokens, or meta:STRING for metadata as it stands. "
            "Left out: the metadata if any is given, else none."
        ),
    ] = None,
    meta: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="FIELD=VALUE", help="Metadata by the layout's fields: url=https://..., topic=science."),
    ] = None,
) -> None:
    """Run tasks of lm_eval on an exported model that reads a context before every text. Other options are lm_eval's.

    Example: `colophon lm-eval out/web-model --tasks arc_easy,hellaswag --context empty`
    """
    import json

    if context is not None and meta:
        raise UsageError("give either --context or --meta")
    if not (model / "colophon.json").is_file():
        raise UsageError(f"{model}: not a directory that export-model wrote")
    try:
        from colophon.trainer.export.lm_eval_model import main
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        raise UsageError(f"lm-eval needs the package {package}: pip install 'colophon[eval]'") from None
    model_args = {"pretrained": str(model), "context": fields_of(meta) if meta else context}
    main(["--model", "colophon", "--model_args", json.dumps(model_args), "--tasks", tasks, *arguments.args])


def export(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Option(help="Directory for the Parquet files.")],
    settings: SetOption = None,
    executor: ExecutorOption = ExecutorName.INLINE,
) -> None:
    """Write the input with its annotations beside it, as Parquet for publishing.

    Example: `colophon export recipes/web.toml --to out/web-annotated`
    """
    from colophon.pipeline.runs.calibration import calibrated
    from colophon.pipeline.runs.export import ExportStage, export_tasks
    from colophon.pipeline.runs.plan import Plan
    from colophon.pipeline.runs.progress import watch

    console = make_console()
    prepared = calibrated(load_and_check(recipe, settings), write=False, log=echo)
    tasks = export_tasks(Plan(prepared))
    to.mkdir(parents=True, exist_ok=True)
    stage = ExportStage(prepared.store, to.absolute(), prepared.recipe.input.columns)
    with executor_of(executor, prepared.recipe.ray) as place:
        place.connect()
        total = sum(task.partition.bytes for task in tasks)
        outcomes = place.executor.run(stage, tasks)
        for outcome in watch(outcomes, title="export", total_bytes=total, total_tasks=len(tasks), console=console):
            if outcome.error is not None:
                raise ColophonError(f"export: {outcome.task.partition.source}: {outcome.error}")
    left_out = len(prepared.inputs.partitions) - len(tasks)
    typer.echo(f"{len(tasks)} files in {to}" + (f"; {left_out} quarantined partitions left out" if left_out else ""))
