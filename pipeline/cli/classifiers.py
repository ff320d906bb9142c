"""The command that trains a classifier on labelled files."""

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
from colophon.pipeline.cli.terminal import echo, echo_json, progress_log
from colophon.pipeline.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from colophon.pipeline.classifiers.students import HeadsKind


def train_classifier(
    train: Annotated[
        list[str],
        typer.Option(help="Labelled file to train on: Parquet or JSONL with a text and a label column. Repeatable."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="Model file to write; its model card is written beside it, with .json appended.", callback=local_only
        ),
    ],
    test: Annotated[list[str] | None, typer.Option(help="Labelled file to test on. Repeatable.")] = None,
    text: Annotated[str, typer.Option(help="Name of the text column.")] = "text",
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of the label column. Repeatable for pooled and embedding: a head for each.", show_default="label"
        ),
    ] = None,
    kind: Annotated[
        ClassifierKind,
        typer.Option(
            help="Kind of classifier. fasttext: reads words. pooled: reads the ids of a tokenizer, which a pass that "
            "tokenizes has anyway. embedding: reads the vectors of an embedder."
        ),
    ] = ClassifierKind.FASTTEXT,
    tokenizer: TokenizerOption = None,
    embedder: EmbedderOption = None,
    plugin: PluginOption = None,
    normalize: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="For fasttext: text preparation, as in the annotator's normalize table: lower=true, ... Repeatable.",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Training setting. fasttext: dim=64, epoch=10, word_ngrams=2, buckets=200000, ...; "
            "pooled: dim=64, epochs=5, ngrams=2, bucket_bits=18, ...; embedding: hidden=256, epochs=5, ... Repeatable.",
        ),
    ] = None,
    autotune: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS", help="For fasttext: search for better settings for this time, on held-out rows."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a classifier; print precision, recall, F1 and the confusion matrix on the test files.

    Example: `colophon train-classifier --train train.parquet --test test.parquet --output models/quality.bin`
    """
    labels = label or ["label"]
    options = KindOptions(tokenizer=tokenizer, embedder=embedder, plugin=plugin, output=output)
    options.check([kind])
    if kind is not ClassifierKind.FASTTEXT:
        from colophon.pipeline.classifiers.heads import check_heads
        from colophon.pipeline.recipe.loading import parse_settings

        if normalize or autotune is not None:
            raise UsageError("--normalize and --autotune are for --kind fasttext")
        check_heads(labels)
        chosen = options.heads(kind, settings=parse_settings("--setting", setting or []))
        _train_heads(train, output, test, kind=chosen, text=text, labels=labels, as_json=as_json)
        return
    if len(labels) > 1:
        raise UsageError("several --label are for --kind pooled and embedding")
    _train_fasttext(
        train,
        output,
        test,
        text=text,
        label=labels[0],
        normalize=normalize,
        setting=setting,
        autotune=autotune,
        as_json=as_json,
    )


def _train_fasttext(
    train: list[str],
    output: Path,
    test: list[str] | None,
    *,
    text: str,
    label: str,
    normalize: list[str] | None,
    setting: list[str] | None,
    autotune: int | None,
    as_json: bool,
) -> None:
    from colophon.annotators.fasttext.report import format_report
    from colophon.annotators.fasttext.text_preparation import TextPreparation
    from colophon.annotators.fasttext.training.classifier import DEFAULT_PREPARATION
    from colophon.annotators.fasttext.training.classifier import train_classifier as train_model
    from colophon.annotators.fasttext.training.settings import TrainingSettings
    from colophon.pipeline.inputs.training_texts import read_labelled
    from colophon.pipeline.recipe.error_messages import validated
    from colophon.pipeline.recipe.loading import parse_settings

    preparation = {**DEFAULT_PREPARATION.model_dump(), **parse_settings("--normalize", normalize or [])}
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
        report=progress_log(as_json),
    )
    if as_json:
        report = None if trained.report is None else trained.report.as_dict()
        echo_json({"path": str(trained.path), "bytes": trained.path.stat().st_size, "test": report})
        return
    if trained.report is not None:
        echo(format_report(trained.report))
    _echo_model(trained.path)


def _train_heads(
    train: list[str],
    output: Path,
    test: list[str] | None,
    *,
    kind: HeadsKind,
    text: str,
    labels: list[str],
    as_json: bool,
) -> None:
    from colophon.annotators.fasttext.report import format_report
    from colophon.pipeline.inputs.training_texts import read_labels

    def read(files: list[str]) -> pa.Table:
        return read_labels(files, text=kind.column or text, labels=labels, has_vectors=kind.column is not None)

    rows = read(train)
    tests = read(test) if test else None
    texts, columns = _texts_and_labels(rows, labels)
    trained = kind.train(
        texts,
        columns,
        output=output,
        test=None if tests is None else _texts_and_labels(tests, labels),
        report=progress_log(as_json),
    )
    if as_json:
        reports = {name: report.as_dict() for name, report in trained.reports.items()}
        echo_json({"path": str(trained.path), "bytes": trained.path.stat().st_size, "test": reports or None})
        return
    for name, report in trained.reports.items():
        echo(f"{name}:\n{format_report(report)}" if len(labels) > 1 else format_report(report))
    _echo_model(trained.path)


def _texts_and_labels(rows: pa.Table, labels: list[str]) -> tuple[pa.Array, dict[str, pa.Array]]:
    texts, *columns = (rows.column(place).combine_chunks() for place in range(rows.num_columns))
    return texts, dict(zip(labels, columns, strict=True))


def _echo_model(path: Path) -> None:
    echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB; model card: {path}.json")
