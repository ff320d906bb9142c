"""Commands that ask trained models: what texts cost them under each condition, and how they write on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from colophon.pipeline.cli.options import (
    RecipeArgument,
    SetOption,
    StepOption,
    echo,
    fields_of,
    make_console,
    recipe_and_output,
    result_name,
    tokenizer_of,
    write_whole,
)
from colophon.pipeline.errors import UsageError

if TYPE_CHECKING:
    from colophon.shards.tokenizer.tokenizer import Tokenizer


def evaluate(
    call: typer.Context,
    recipe: RecipeArgument,
    name: Annotated[list[str], typer.Option(help="A [train.NAME] that has been trained; may be given again.")],
    output: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="DIRECTORY",
            help="Output of another run whose documents are scored. Left out: the models' validation_output where all "
            "have one, else the recipe's own output, which they were trained on.",
        ),
    ] = None,
    documents: Annotated[int, typer.Option(min=1, help="How many documents to draw.")] = 500,
    crop: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=1,
            help="First tokens of a document that are scored. Left out: 512, or as many as the rows of every layout "
            "that the run has packed hold beside its longest context: the same whichever models are named.",
        ),
    ] = None,
    conditions: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Some of none,empty,true,shuffled,meta_tokens; all that a layout has if left out."),
    ] = None,
    by: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="An annotation column whose values are looked at one by one; may be given again."),
    ] = None,
    step: StepOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the documents, the shuffling and the resamples.")] = 0,
    settings: SetOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON value, a list with an entry a model.")
    ] = False,
) -> None:
    """Score the same texts with trained models: without context, with an empty wrapper, with true or shuffled metadata.

    Example: `colophon evaluate recipes/web.toml --name plain --name prepend-url --by topic`
    """
    import json

    from colophon.pipeline.reports.evaluation_tables import print_evaluation
    from colophon.trainer.evaluation.conditions import Contestant, EvaluationSettings
    from colophon.trainer.evaluation.conditions import evaluate as score
    from colophon.trainer.evaluation.document_crops import RunDocuments
    from colophon.trainer.inference.contexts import condition_names, layout_of
    from colophon.trainer.inference.trained_model import load_trained

    loaded, own = recipe_and_output(recipe, settings)
    tokenizer = tokenizer_of(loaded, where=recipe)
    contestants = []
    for each in dict.fromkeys(name):
        trained = load_trained(own, each, step=step)
        _check_vocabulary(recipe, tokenizer, name=each, sha256=trained.tokenizer.sha256)
        contestants.append(Contestant(trained=trained, layout=layout_of(trained.config, output=own)))
    held_out = {contestant.trained.config.validation_output for contestant in contestants}
    place = Path(output or (held_out.pop() if len(held_out) == 1 else None) or own)
    found = score(
        contestants,
        documents=RunDocuments(place),
        tokenizer=tokenizer,
        settings=EvaluationSettings(
            documents=documents,
            crop=crop,
            conditions=condition_names(conditions.split(",")) if conditions else None,
            by=tuple(dict.fromkeys(by or [])),
            seed=seed,
        ),
        report=(lambda line: None) if as_json else echo,
    )
    described = [found.as_dict(contestant.trained.name) for contestant in contestants]
    written = [own / "training" / each / f"{_result_name(call, each, name)}.json" for each in dict.fromkeys(name)]
    for path, entry in zip(written, described, strict=True):
        write_whole(path, json.dumps(entry, indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(described, indent=1))
        return
    print_evaluation(described, console=make_console())
    for line in [*_legend(described), *map(str, written)]:
        echo(line)
    if place.resolve() == own.resolve():
        echo("The models were trained on documents of this very run; --output names another one's.")


def _result_name(call: typer.Context, model: str, models: Iterable[str]) -> str:
    """Of the model's file; the models that it is compared with are part of what was asked."""
    beside = sorted({*models} - {model})
    return result_name("evaluation", call, leave_out=["name"], beside=beside)


def _legend(described: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What the tables do not say themselves."""
    first = described[0]
    yield (
        "The last two columns are bits/byte less those of the model's first condition, and less those of "
        f"{first['model']} {next(iter(first['conditions']))}: below 0 is better. Their brackets are of the same "
        "resamples, and surer than two intervals side by side."
    )
    if first["by"]:
        yield "By column: ± is half the width of a value's own interval."
    for column, groups in first["by"].items():
        if groups["small_groups"]:
            yield f"{column}: and {groups['small_groups']:,} groups of fewer than 5 documents."


def generate(
    recipe: RecipeArgument,
    name: Annotated[str, typer.Option(help="A [train.NAME] that has been trained.")],
    prompt: Annotated[str, typer.Option(help="How the text begins; the model begins it if left out.")] = "",
    meta: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="FIELD=VALUE", help="Metadata by the layout's fields: url=https://..., topic=science."),
    ] = None,
    condition: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="What stands before the text: meta, empty, meta_tokens or none. Left out: the metadata if any is "
            "given, else an empty wrapper, meta tokens or nothing, as the layout has it."
        ),
    ] = None,
    guidance: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="From the empty wrapper (0) to the context (1) and beyond."),
    ] = None,
    max_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Tokens to draw; 100, or as many as the model's rows hold, if left out."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token always.")] = 0.8,
    top_k: Annotated[Optional[int], typer.Option(help="Draw from so many of the likeliest tokens.")] = None,  # noqa: UP045
    top_p: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Draw from the likeliest tokens that together have this probability."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Each sample is a function of it and of its own number.")] = 0,
    num_samples: Annotated[int, typer.Option(help="How many texts to write.")] = 1,
    step: StepOption = None,
    settings: SetOption = None,
) -> None:
    """Let a trained model write on, conditioned on metadata and guided by it.

    Example: `colophon generate recipes/web.toml --name prepend-url --prompt "The" --meta url=https://example.org/a`
    """
    import pyarrow as pa

    from colophon.pipeline.errors import printable
    from colophon.trainer.inference.contexts import layout_of
    from colophon.trainer.inference.generation import context_name, context_prefix
    from colophon.trainer.inference.generation import generate as write
    from colophon.trainer.inference.sampling import SamplingSettings, texts_of
    from colophon.trainer.inference.trained_model import load_trained

    sampling = SamplingSettings(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance=guidance,
        seed=seed,
        num_samples=num_samples,
    )
    loaded, own = recipe_and_output(recipe, settings)
    tokenizer = tokenizer_of(loaded, where=recipe)
    trained = load_trained(own, name, step=step)
    _check_vocabulary(recipe, tokenizer, name=name, sha256=trained.tokenizer.sha256)
    layout = layout_of(trained.config, output=own)
    steps = write(
        trained,
        layout,
        prefix=context_prefix(
            layout,
            context=context_name(condition) if condition else None,
            metadata=fields_of(meta or []),
            encoder=tokenizer,
            report=lambda line: typer.echo(f"colophon: {line}", err=True),
        ),
        prompt=tokenizer.encode_batch(pa.array([prompt])).values.to_pylist(),
        settings=sampling,
        text_ids=tokenizer.text_ids(),
    )
    if num_samples == 1:
        typer.echo(printable(prompt), nl=False)
        for piece in texts_of(steps, sample=0, decode=tokenizer.decode):
            typer.echo(printable(piece), nl=False)
        typer.echo()
        return
    kept = list(steps)
    for sample in range(num_samples):
        text = "".join(texts_of(kept, sample=sample, decode=tokenizer.decode))
        typer.echo(f"--- sample {sample}\n{printable(prompt + text)}")


def _check_vocabulary(recipe: str, tokenizer: Tokenizer, *, name: str, sha256: str) -> None:
    if tokenizer.sha256 != sha256:
        raise UsageError(f"{recipe}: [tokenizer] is not the vocabulary that {name} was trained with")
