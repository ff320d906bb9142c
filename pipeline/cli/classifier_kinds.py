"""The kinds of classifiers that commands train, and the options that belong to one of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colophon.pipeline.errors import UsageError

if TYPE_CHECKING:
    from colophon.annotators.embedding_classifier import EmbedderConfig
    from colophon.pipeline.classifiers.students import HeadsKind, StudentKind
    from colophon.shards.tokenizer.tokenizer import Tokenizer


class ClassifierKind(str, Enum):
    """The kinds of classifiers that commands train."""

    FASTTEXT = "fasttext"
    POOLED = "pooled"
    EMBEDDING = "embedding"


TokenizerOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="For pooled: the tokenizer, as in a recipe's [tokenizer]: name=gpt2, or path=FILE. Repeatable.",
    ),
]
EmbedderOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="For embedding: the embedder, as in the annotator's table of a recipe: static=DIRECTORY; column=NAME, of "
        "ready vectors in the files; or type=NAME and the keys of a plugin. Repeatable.",
    ),
]
PluginOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="For embedding: Python file that defines the embedder. Read it first: it runs with your rights. "
        "Repeatable.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class KindOptions:
    """The options of a call that belong to one kind of classifier, and the model's path."""

    tokenizer: Sequence[str] | None
    embedder: Sequence[str] | None
    plugin: Sequence[str] | None
    output: Path

    def check(self, kinds: Collection[ClassifierKind]) -> None:
        """Check that each option that is given is of one of the kinds.

        Raises:
            UsageError: one is not.
        """
        for option, value, kind in (
            ("--tokenizer", self.tokenizer, ClassifierKind.POOLED),
            ("--embedder", self.embedder, ClassifierKind.EMBEDDING),
            ("--plugin", self.plugin, ClassifierKind.EMBEDDING),
        ):
            if value and kind not in kinds:
                raise UsageError(f"{option} is for --kind {kind.value}")

    def heads(self, kind: ClassifierKind, *, settings: Mapping[str, Any]) -> HeadsKind:
        """Return a kind with heads and its training settings.

        Raises:
            UsageError: an option is missing or invalid.
        """
        from colophon.pipeline.classifiers.students import EmbeddingKind, PooledKind
        from colophon.pipeline.recipe.error_messages import validated
        from colophon.trainer.classifiers.settings import EmbeddingSettings, PooledSettings

        if kind is ClassifierKind.EMBEDDING:
            chosen = validated(EmbeddingSettings, dict(settings), where="--setting")
            config = _load_embedder_option(self.embedder, self.plugin, output=self.output)
            return EmbeddingKind(config=config, settings=chosen)
        pooled = validated(PooledSettings, dict(settings), where="--setting")
        return PooledKind(tokenizer=_load_tokenizer_option(self.tokenizer), settings=pooled)

    def student(self, kind: ClassifierKind, *, settings: Mapping[str, Any]) -> StudentKind:
        """Return any kind and its training settings; raises as `heads` does."""
        from colophon.annotators.fasttext.training.settings import TrainingSettings
        from colophon.pipeline.classifiers.students import FastTextKind
        from colophon.pipeline.recipe.error_messages import validated

        if kind is ClassifierKind.FASTTEXT:
            return FastTextKind(settings=validated(TrainingSettings, settings, where="--setting"))
        return self.heads(kind, settings=settings)


def _load_tokenizer_option(assignments: Sequence[str] | None) -> Tokenizer:
    """Return the tokenizer of `--tokenizer KEY=VALUE`, given once for each key of a recipe's `[tokenizer]`.

    Raises:
        UsageError: it is missing or invalid, or cannot be loaded.
    """
    from colophon.pipeline.recipe.error_messages import validated
    from colophon.pipeline.recipe.loading import parse_settings
    from colophon.shards.tokenizer.tokenizer import TokenizerConfig, TokenizerError, load_tokenizer

    if not assignments:
        raise UsageError("--tokenizer is required: the one of the recipes that will use the model, such as name=gpt2")
    config = validated(TokenizerConfig, parse_settings("--tokenizer", assignments), where="--tokenizer")
    try:
        return load_tokenizer(config)
    except TokenizerError as error:
        raise UsageError(f"--tokenizer: {error}") from error


def _load_embedder_option(
    assignments: Sequence[str] | None, plugins: Sequence[str] | None, *, output: Path
) -> EmbedderConfig:
    """Return the annotator of `--embedder KEY=VALUE`, given once for each key of its table.

    Raises:
        UsageError: it is missing or invalid, or no annotator with an embedder.
    """
    from colophon.annotators.base import AnnotatorError
    from colophon.annotators.embedding_classifier import EmbedderConfig, EmbeddingConfig
    from colophon.annotators.registry import offers
    from colophon.pipeline.recipe.loading import annotator_config, parse_settings
    from colophon.pipeline.recipe.plugins import read_plugins

    if not assignments:
        raise UsageError("--embedder is required: static=DIRECTORY, column=NAME, or type=NAME and the keys of a plugin")
    table = parse_settings("--embedder", assignments)
    section = {"type": EmbeddingConfig.type_name, **table, "model": str(output)}
    paths = [Path(plugin) for plugin in plugins or []]
    files = [
        file
        for path in paths
        for file in read_plugins([path.name], directory=path.parent, where="--plugin", allowed=True)
    ]
    try:
        among = offers(files)
    except AnnotatorError as error:
        raise UsageError(f"--plugin: {error}") from error
    config = annotator_config("embedder", section, among, where="--embedder")
    if not isinstance(config, EmbedderConfig):
        raise UsageError(f"--embedder: {section['type']} is no annotator with an embedder")
    return config
