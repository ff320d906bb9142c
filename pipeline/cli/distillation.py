"""The command that teaches a fast classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colophon.pipeline.cli.classifier_kinds import (
    ClassifierKind,
    EmbedderOption,
    KindOptions,
    PluginOption,
    TokenizerOption,
)
from colophon.pipeline.cli.options import JsonOption, local_only
from colophon.pipeline.cli.terminal import echo, echo_json, make_console, progress_log

if TYPE_CHECKING:
    from colophon.pipeline.classifiers.distillation import Distilled
    from colophon.pipeline.classifiers.students import StudentKind


def distill(
    texts: Annotated[
        list[str],
        typer.Option("--input", help="Files with texts: file, directory or glob, as in [input] paths. Repeatable."),
    ],
    column: Annotated[
        str,
        typer.Option(help="The teacher's column: numbers, a label a text, or lists of tags."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="Model file to write; its model card is written beside it, with .json appended.", callback=local_only
        ),
    ],
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="File with ids and the teacher's column, such as a run's annotations. Repeatable.",
            show_default="the input has the column",
        ),
    ] = None,
    kind: Annotated[ClassifierKind, typer.Option(help="Kind of classifier to write.")] = ClassifierKind.POOLED,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Teach the other kinds too, embedding with --embedder, and show the agreement of all."
        ),
    ] = False,
    tokenizer: TokenizerOption = None,
    embedder: EmbedderOption = None,
    plugin: PluginOption = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Training setting of the kind that is written, as in train-classifier. Repeatable.",
        ),
    ] = None,
    classes: Annotated[
        int, typer.Option(min=2, max=100, help="Classes of equal size for numbers that are not a few whole ones.")
    ] = 6,
    most_labels: Annotated[
        int, typer.Option(min=2, max=2000, help="Labels or tags to learn: the most frequent ones.")
    ] = 200,
    held_out: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of registered domains whose texts are held out.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for the split, the training and the intervals.")] = 0,
    text: Annotated[str, typer.Option(help="Name of the text column.")] = "text",
    document_id: Annotated[str, typer.Option("--id", help="Name of the id column of --input.")] = "id",
    teacher_id: Annotated[
        str, typer.Option(help="Name of the id column of --teacher; a run's annotations have id.")
    ] = "id",
    url: Annotated[str, typer.Option(help="Name of the URL column; without one, ids are split.")] = "url",
    as_json: JsonOption = False,
) -> None:
    """Teach a fast classifier what a slow one says about a sample; print how well they agree on held-out domains.

    Example: `colophon distill --input "data/*.parquet" --column score --tokenizer name=gpt2 --output models/edu.st`
    """
    from colophon.pipeline.classifiers.distillation import distill as teach
    from colophon.pipeline.classifiers.teaching import Columns, described, read_teaching

    kinds = _students(
        kind,
        KindOptions(tokenizer=tokenizer, embedder=embedder, plugin=plugin, output=output),
        setting=setting or [],
        compare=compare,
        seed=seed,
    )
    vector = next((each.column for each in kinds if each.column is not None), None)
    names = Columns(teacher=column, text=text, id=document_id, teacher_id=teacher_id, url=url, vector=vector)
    teaching = read_teaching(texts, names, teacher=teacher or [], classes=classes, most_labels=most_labels)
    log = progress_log(as_json)
    if left_out := described(teaching.counts):
        log(left_out)
    found = teach(teaching, kinds, output=output, teacher=column, share=held_out, seed=seed, report=log)
    _show(found, name=column, as_json=as_json)


def _students(
    kind: ClassifierKind, options: KindOptions, *, setting: list[str], compare: bool, seed: int
) -> list[StudentKind]:
    """Return the kinds to teach: the one that is written, with its settings, then those that it is compared with."""
    from colophon.pipeline.recipe.loading import parse_settings

    others = [other for other in ClassifierKind if compare and other is not kind]
    if not options.embedder and ClassifierKind.EMBEDDING in others:
        others.remove(ClassifierKind.EMBEDDING)
    options.check([kind, *others])
    settings = {"seed": seed, **parse_settings("--setting", setting)}
    return [
        options.student(kind, settings=settings),
        *(options.student(other, settings={"seed": seed}) for other in others),
    ]


def _show(found: Distilled, *, name: str, as_json: bool) -> None:
    """Print the agreements and the lines of a recipe; `name` is the teacher's column."""
    from colophon.pipeline.reports.distillation import print_agreements, recipe_lines

    if as_json:
        agreements = [agreement.as_dict() for agreement in found.agreements]
        echo_json({"path": str(found.path), "texts": found.texts, "agreement": agreements, "card": found.card})
        return
    print_agreements(found, console=make_console())
    echo(f"\n{found.path}: {found.path.stat().st_size / 1e6:.1f} MB; model card: {found.path}.json. In a recipe:\n")
    echo(recipe_lines(found, name=name))
