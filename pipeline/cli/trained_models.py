"""Trained models as commands use them: with the layout of their checkpoint and the tokenizer of their training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colophon.pipeline.cli.options import tokenizer_of, training_root
from colophon.pipeline.cli.terminal import echo

if TYPE_CHECKING:
    from colophon.pipeline.recipe.schema import Recipe
    from colophon.shards.tokenizer.tokenizer import Tokenizer
    from colophon.trainer.inference.trained_model import TrainedModel


def trained_model(
    recipe: Recipe, name: str, *, where: str, step: int | None, device: str | None = None
) -> tuple[TrainedModel, Tokenizer]:
    """Load a checkpoint of `[train.<name>]` and the recipe's tokenizer; print a line if its layout was changed since.

    Args:
        recipe: its output has the model, its `[tokenizer]` the vocabulary. Its layouts are not used.
        name: the training run's.
        where: the recipe's name in errors.
        step: the checkpoint's; None: the newest.
        device: None: CUDA where it is available, else the CPU.

    Raises:
        UsageError: the recipe has no tokenizer, or it cannot be loaded.
        TrainerError: the run or checkpoint does not exist or is damaged, or the tokenizer is not that of the training.
    """
    from colophon.shards.stores.places import run_place
    from colophon.trainer.inference.contexts import layout_changes
    from colophon.trainer.inference.trained_model import load_trained
    from colophon.trainer.inference.vocabulary import check_tokenizer

    root, run = training_root(recipe, where=where), run_place(recipe.output.path)
    trained = load_trained(root, name, run=run, step=step, device=device)
    tokenizer = tokenizer_of(recipe, where=where, num_meta_tokens=len(trained.tokenizer.special.meta))
    check_tokenizer(tokenizer, trained.tokenizer, training=name, where=where)
    changes = layout_changes(trained.layout)
    if changes:
        echo(
            f"colophon: layout {trained.layout.name!r} of {trained.layout.output} has changed since {name} was "
            f"trained: {'; '.join(changes)}. {name} is used with its own layout, the old one",
            err=True,
        )
    return trained, tokenizer
