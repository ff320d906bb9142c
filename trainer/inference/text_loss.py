"""Losses of texts under a trained model, each alone in its row after its context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.inference.padding import padded_batches
from colophon.trainer.inference.trained_model import TrainedModel
from colophon.trainer.loss import chunked_cross_entropy

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
    rows = [np.concatenate([np.asarray(prefix, np.int64), text]) for prefix, text in zip(prefixes, texts, strict=True)]
    sums = np.zeros(len(rows), np.float64)
    for batch, tokens, lengths in padded_batches(rows, max_size=tokens_at_once):
        first_labels = torch.tensor([len(prefixes[i]) - 1 for i in batch])
        sums[batch] = _batch_losses(trained, tokens, first_labels=first_labels, num_labels=lengths - 1)
    return sums


def _batch_losses(trained: TrainedModel, tokens: Tensor, *, first_labels: Tensor, num_labels: Tensor) -> NumPyArray:
    """float64 [b]: summed loss of the labels from `first_labels` int64 [b] on, in rows int64 [b, L + 1]."""
    index = torch.arange(tokens.shape[1] - 1)
    counted = (index >= first_labels[:, None]) & (index < num_labels[:, None])
    states = trained.hidden_states(tokens[:, :-1].to(trained.device))[counted.to(trained.device)]
    labels = tokens[:, 1:][counted].to(trained.device)
    losses = chunked_cross_entropy(
        states,
        trained.model.output_weight,
        labels,
        torch.ones_like(labels, dtype=torch.float32),
        impossible_ids=trained.model.impossible_ids,
    ).losses
    row_of_label = torch.arange(len(tokens)).repeat_interleave(counted.sum(dim=1))
    return np.bincount(row_of_label.numpy(), weights=losses.double().cpu().numpy(), minlength=len(tokens))
