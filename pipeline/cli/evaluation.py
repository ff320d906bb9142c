"""Commands that use trained models: their loss on the same texts under each condition, and texts that they generate."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colophon.pipeline.cli.options import (
    EvaluatedDocumentsOption,
    JsonOption,
    MetadataOption,
    NumDocumentsOption,
    RecipeArgument,
    RunNameOption,
    RunNamesOption,
    SeedOption,
    SetOption,
    StepOption,
    fields_of,
    recipe_and_output,
    result_name,
)
from colophon.pipeline.cli.terminal import echo, echo_json, make_console, output_is_the_result, progress_log
from colophon.pipeline.cli.trained_models import trained_model
from colophon.shards.common.durable import replace_text
from colophon.shards.common.output_paths import inside
from colophon.shards.stores.places import run_place

if TYPE_CHECKING:
    from colophon.shards.tokenizer.tokenizer import Tokenizer


def evaluate(
    call: typer.Context,
    recipe: RecipeArgument,
    name: RunNamesOption,
    output: EvaluatedDocumentsOption = None,
    documents: NumDocumentsOption = 500,
    crop: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens to score at the beginning of each document.",
            show_default="512, or fewer if a packed layout has less room for text beside its longest context",
        ),
    ] = None,
    conditions: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated conditions to score: none, empty, true, shuffled, meta_tokens.",
            show_default="every condition of the layout",
        ),
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Annotation column; results are broken down by its values. Repeatable.")
    ] = None,
    step: StepOption = None,
    seed: SeedOption = 0,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the same texts with trained models: without context, with an empty wrapper, with true or shuffled metadata.

    Example: `colophon evaluate recipes/web.toml --name plain --name prepend-url --by topic`
    """
    loaded, own = recipe_and_output(recipe, settings)
    from colophon.pipeline.reports.evaluation_tables import legend, print_evaluation
    from colophon.trainer.evaluation.conditions import evaluate as score
    from colophon.trainer.evaluation.document_crops import RunDocuments
    from colophon.trainer.evaluation.held_out import held_out_documents
    from colophon.trainer.evaluation.settings import EvaluatedModel, EvaluationSettings
    from colophon.trainer.inference.contexts import condition_names

    names = list(dict.fromkeys(name))
    loaded_models = [trained_model(loaded, each, where=recipe, step=step) for each in names]
    models = [EvaluatedModel(trained=trained) for trained, _ in loaded_models]
    other = output or _validation_output(models)
    results_at = [inside(own, Path("training", each, f"{_evaluation_name(call, each, names)}.json")) for each in names]
    evaluation = score(
        models,
        documents=held_out_documents(models) if other is None else RunDocuments(run_place(other)),
        tokenizer=loaded_models[0][1],
        settings=EvaluationSettings(
            documents=documents,
            crop=crop,
            conditions=condition_names(conditions.split(",")) if conditions else None,
            by=tuple(dict.fromkeys(by or [])),
            seed=seed,
        ),
        report=progress_log(as_json),
    )
    results = [evaluation.as_dict(model.name) for model in models]
    for path, result in zip(results_at, results, strict=True):
        replace_text(path, json.dumps(result, indent=1) + "\n")
    if as_json:
        echo_json(results)
        return
    print_evaluation(results, console=make_console())
    for line in [*legend(results), *map(str, results_at)]:
        echo(line)


def _validation_output(models: Sequence[Any]) -> str | None:
    """Return the `validation_output` that all models have in common, or None."""
    outputs = {model.trained.config.validation_output for model in models}
    (output, *others) = outputs
    return None if others else output


def _evaluation_name(call: typer.Context, model: str, models: Iterable[str]) -> str:
    """Return the name of a model's result; it contains the other models, because the result compares with them."""
    beside = sorted({*models} - {model})
    return result_name("evaluation", call, exclude=["name"], beside=beside)


def generate(
    recipe: RecipeArgument,
    name: RunNameOption,
    prompt: Annotated[
        str, typer.Option(help="Beginning of the text.", show_default="empty: the model begins the text")
    ] = "",
    meta: MetadataOption = None,
    condition: Annotated[
        str | None,
        typer.Option(
            help="Context before the text: meta, empty, meta_tokens or none.",
            show_default="meta if --meta is given, else the layout's: an empty wrapper, meta tokens or none",
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Strength of guidance by the context: 0 is the empty wrapper, 1 the context; above 1 exaggerates it.",
            show_default="no guidance",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of tokens to draw.", show_default="100, or fewer if the model's rows are full before"
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 always takes the likeliest token.")] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from this many of the likeliest tokens.", show_default="all")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Draw from the likeliest tokens that together have this probability.", show_default="all"),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Random seed; each sample depends on the seed and on its own number only.")
    ] = 0,
    num_samples: Annotated[int, typer.Option(help="Number of texts to generate.")] = 1,
    step: StepOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate text with a trained model, conditioned on metadata and guided by it.

    Example: `colophon generate recipes/web.toml --name prepend-url --prompt "The" --meta url=https://example.org/a`
    """
    output_is_the_result()
    loaded, _ = recipe_and_output(recipe, settings)
    import pyarrow as pa

    from colophon.trainer.inference.generation import context_name, context_prefix
    from colophon.trainer.inference.generation import generate as sample_steps
    from colophon.trainer.inference.sampling import SamplingSettings

    sampling = SamplingSettings(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance=guidance,
        seed=seed,
        num_samples=num_samples,
    )
    trained, tokenizer = trained_model(loaded, name, where=recipe, step=step)
    prefix = context_prefix(
        trained.layout,
        context=context_name(condition) if condition else None,
        metadata=fields_of(meta or []),
        encoder=tokenizer,
        report=lambda line: echo(f"colophon: {line}", err=True),
    )
    steps = sample_steps(
        trained,
        trained.layout,
        prefix=prefix,
        prompt=tokenizer.encode_batch(pa.array([prompt])).values.to_pylist(),
        settings=sampling,
        text_ids=tokenizer.text_ids(),
    )
    if as_json:
        samples = _samples(steps, num_samples=num_samples, tokenizer=tokenizer)
        echo_json({"prompt": prompt, "samples": [{"text": text} for text in samples]})
    elif num_samples == 1:
        _print_stream(steps, prompt=prompt, tokenizer=tokenizer)
    else:
        _print_samples(steps, num_samples=num_samples, prompt=prompt, tokenizer=tokenizer)


def _print_stream(steps: Iterable[list[int | None]], *, prompt: str, tokenizer: Tokenizer) -> None:
    """Print the only sample while it is drawn."""
    from colophon.trainer.inference.sampling import sample_texts

    echo(prompt, end="")
    for piece in sample_texts(steps, sample=0, decode=tokenizer.decode):
        echo(piece, end="")
    echo()


def _print_samples(steps: Iterable[list[int | None]], *, num_samples: int, prompt: str, tokenizer: Tokenizer) -> None:
    """Print all samples, one after the other, when they are complete."""
    for sample, text in enumerate(_samples(steps, num_samples=num_samples, tokenizer=tokenizer)):
        echo(f"--- sample {sample}\n{prompt + text}")


def _samples(steps: Iterable[list[int | None]], *, num_samples: int, tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the texts of all samples, without the prompt."""
    from colophon.trainer.inference.sampling import sample_texts

    kept = list(steps)
    for sample in range(num_samples):
        yield "".join(sample_texts(kept, sample=sample, decode=tokenizer.decode))
