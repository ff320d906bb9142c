"""Losses of texts under a trained model, each alone in its row after its context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.inference.padding import padded_batches
from colophon.trainer.inference.trained_model import TrainedModel
from colophon.trainer.model.loss import TokenLosses, chunked_cross_entropy

TOKENS_AT_ONCE = 8192


@torch.no_grad()
def text_losses(
    trained: TrainedModel,
    prefixes: Sequence[Sequence[int]],
    texts: Sequence[NumPyArray],
    *,
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> NumPyArray:
    """float64 [num_documents]: loss of each text in nats, summed over its tokens; its prefix is not counted.

    Rows of similar length share a batch, the longest first. Padding is at the end of a row, where causal attention
    cannot see it, so a text has the loss that it has alone.

    Args:
        trained: the model.
        prefixes: ids before each text, bos first.
        texts: ids of each text, at least one.
        tokens_at_once: tokens of a batch, padding included; a single longer row is a batch of its own.
    """
    sums = np.zeros(len(texts), np.float64)
    for batch, row_of_label, found in _label_losses(trained, prefixes, texts, tokens_at_once=tokens_at_once):
        losses = found.losses.double().cpu().numpy()
        sums[batch] = np.bincount(row_of_label, weights=losses, minlength=len(batch))
    return sums


@torch.no_grad()
def exact_matches(trained: TrainedModel, prefixes: Sequence[Sequence[int]], texts: Sequence[NumPyArray]) -> NumPyArray:
    """bool [num_documents]: whether the model predicts every id of a text after its prefix and the ids before.

    So the greedy continuation of the prefix is the text. Arguments as of `text_losses`.
    """
    matches = np.zeros(len(texts), bool)
    for batch, row_of_label, found in _label_losses(trained, prefixes, texts, with_hits=True):
        assert found.hits is not None
        misses = ~found.hits.cpu().numpy()
        matches[batch] = np.bincount(row_of_label, weights=misses, minlength=len(batch)) == 0
    return matches


def _label_losses(
    trained: TrainedModel,
    prefixes: Sequence[Sequence[int]],
    texts: Sequence[NumPyArray],
    *,
    tokens_at_once: int = TOKENS_AT_ONCE,
    with_hits: bool = False,
) -> Iterator[tuple[NumPyArray, NumPyArray, TokenLosses]]:
    """Yield batches: numbers of the documents [b], of each label its document's place in the batch, and the losses."""
    rows = [np.concatenate([np.asarray(prefix, np.int64), text]) for prefix, text in zip(prefixes, texts, strict=True)]
    for batch, tokens, lengths in padded_batches(rows, max_size=tokens_at_once):
        first_labels = torch.tensor([len(prefixes[i]) - 1 for i in batch])
        index = torch.arange(tokens.shape[1] - 1)
        counted = (index >= first_labels[:, None]) & (index < lengths[:, None] - 1)
        states = trained.hidden_states(tokens[:, :-1].to(trained.device))[counted.to(trained.device)]
        labels = tokens[:, 1:][counted].to(trained.device)
        losses = chunked_cross_entropy(
            states,
            trained.model.output_weight,
            labels,
            torch.ones_like(labels, dtype=torch.float32),
            impossible_ids=trained.model.impossible_ids,
            with_hits=with_hits,
        )
        yield batch, torch.arange(len(tokens)).repeat_interleave(counted.sum(dim=1)).numpy(), losses
