"""Whether a tokenizer is the one that a model was trained with."""

from __future__ import annotations

from dataclasses import asdict

from colophon.shards.common.differences import differences
from colophon.shards.schema import TokenizerInfo
from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.errors import TrainerError


def check_tokenizer(tokenizer: Tokenizer, trained: TokenizerInfo, *, training: str, where: str) -> None:
    """Refuse a tokenizer with other ids than in training.

    Args:
        tokenizer: the one that will encode and decode, with as many meta tokens as in training.
        trained: the one of the training, from the checkpoint.
        training: the name of the training, for the message.
        where: the recipe or file that names the tokenizer, for the message.

    Raises:
        TrainerError: the vocabulary, the number of ids or a special id differs; the message has both values.
    """
    before = {"sha256": trained.sha256, "num_ids": trained.num_ids, "special": asdict(trained.special)}
    now = {"sha256": tokenizer.sha256, "num_ids": tokenizer.num_ids, "special": asdict(tokenizer.special)}
    changed = differences(before, now)
    if changed:
        names = "" if trained.name == tokenizer.name else f"{trained.name} -> {tokenizer.name}; "
        raise TrainerError(
            f"{where}: [tokenizer] is not the one that {training} was trained with: {names}{'; '.join(changed)}. "
            "Change it back, or train the model again"
        )
