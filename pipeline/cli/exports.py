"""Commands that export: trained models for Hugging Face's libraries and lm_eval, annotated input as Parquet."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from colophon.pipeline.cli.options import (
    ExecutorOption,
    JsonOption,
    MetadataOption,
    RecipeArgument,
    RunNameOption,
    SetOption,
    StepOption,
    fields_of,
    load_and_check,
    local_only,
    recipe_and_output,
)
from colophon.pipeline.cli.terminal import echo, echo_json, make_console, progress_log, trust_libraries
from colophon.pipeline.cli.trained_models import trained_model
from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.session import ExecutorName, ExecutorSession


class _Dtype(str, Enum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def export_model(
    recipe: RecipeArgument,
    name: RunNameOption,
    to: Annotated[
        Path, typer.Option(help="Directory to write; it must not exist yet, or be empty.", callback=local_only)
    ],
    step: StepOption = None,
    dtype: Annotated[_Dtype, typer.Option(help="Data type of the weights in the file.")] = _Dtype.FLOAT32,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a trained model and its tokenizer as a directory that Hugging Face transformers loads.

    Example: `colophon export-model recipes/web.toml --name prepend-url --to out/web-model`
    """
    loaded, _ = recipe_and_output(recipe, settings)
    from colophon.trainer.export.model import check_empty
    from colophon.trainer.export.model import export_model as write_model

    check_empty(to)
    trained, tokenizer = trained_model(loaded, name, where=recipe, step=step, device="cpu")
    exported = write_model(trained, tokenizer=tokenizer, layout=trained.layout, to=to, dtype=dtype.value)
    if as_json:
        echo_json(
            {
                "path": str(to),
                "architecture": exported.architecture,
                "ids": exported.num_ids,
                "step": exported.step,
                "masked_ids": len(exported.masked_ids),
                "different_texts": len(exported.tokenizer.different),
            }
        )
        return
    echo(f"{to}: {exported.architecture}, {exported.num_ids:,} ids, step {exported.step}")
    if exported.masked_ids:
        echo(
            f"{len(exported.masked_ids)} ids were masked in training; transformers cannot mask them: see {to}/README.md"
        )
    num_different = len(exported.tokenizer.different)
    if num_different:
        echo(f"{num_different} hard texts with names of special tokens have different ids than in training")


def lm_eval(
    arguments: typer.Context,
    model: Annotated[Path, typer.Argument(help="Directory that export-model wrote.", callback=local_only)],
    tasks: Annotated[str, typer.Option(help="Comma-separated tasks of lm_eval, or task files.")],
    context: Annotated[
        str | None,
        typer.Option(
            help="Context before every text: none, empty, meta_tokens, or meta:STRING with STRING as the metadata.",
            show_default="the metadata of --meta, else none",
        ),
    ] = None,
    meta: MetadataOption = None,
) -> None:
    """Run tasks of lm_eval on an exported model that reads a context before every text. Other options go to lm_eval.

    Example: `colophon lm-eval out/web-model --tasks arc_easy,hellaswag --context empty`
    """
    if context is not None and meta:
        raise UsageError("give either --context or --meta")
    if not (model / "colophon.json").is_file():
        raise UsageError(f"{model}: not a directory that export-model wrote")
    try:
        from colophon.trainer.export.lm_eval_model import main
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        raise UsageError(f"lm-eval needs the package {package}: pip install 'colophon[eval]'") from None
    trust_libraries()  # progress bars
    model_args = {"pretrained": str(model), "context": fields_of(meta) if meta else context}
    main(["--model", "colophon", "--model_args", json.dumps(model_args), "--tasks", tasks, *arguments.args])


def export(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Option(help="Directory to write the Parquet files to.", callback=local_only)],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the files of a different export from the directory.")
    ] = False,
    settings: SetOption = None,
    executor: ExecutorOption = ExecutorName.INLINE,
    as_json: JsonOption = False,
) -> None:
    """Write the input with its annotations as additional columns, as Parquet for publishing.

    All files have one schema. Files of an earlier export of the same run are replaced or removed.

    Example: `colophon export recipes/web.toml --to out/web-annotated`
    """
    from colophon.pipeline.export.export import Export
    from colophon.pipeline.runs.calibration import calibrated

    console, log = make_console(err=as_json), progress_log(as_json)
    resolved = calibrated(load_and_check(recipe, settings), write=False, log=log)
    job = Export(resolved, to, overwrite)
    tasks = job.tasks()
    with ExecutorSession(executor, resolved.recipe.ray, log=log) as session:
        session.connect()
        job.write(tasks, session.executor, console)
    num_skipped = len(resolved.inputs.partitions) - len(tasks)
    if as_json:
        echo_json({"path": str(to), "files": len(tasks), "quarantined_partitions": num_skipped})
        return
    skipped = f"; {num_skipped} quarantined partitions skipped" if num_skipped else ""
    echo(f"{len(tasks)} files in {to}{skipped}")
