"""What a trained model pays for texts, each alone in its row behind its context."""

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
    """float64 [num_documents]: nats that all tokens of each text cost together; those of its prefix are not counted.

    Rows of about one length share a batch, longest first. Padding stands behind a row, where causal attention never
    looks, so a document costs what it costs alone.

    Args:
        trained: the model.
        prefixes: ids before each text, bos first: at least one.
        texts: ids of each text, at least one.
        tokens_at_once: of a batch, padding counted; one row has as many as it needs.
    """
    rows = [np.concatenate([np.asarray(prefix, np.int64), text]) for prefix, text in zip(prefixes, texts, strict=True)]
    sums = np.zeros(len(rows), np.float64)
    for batch, tokens, lengths in padded_batches(rows, max_size=tokens_at_once):
        first_labels = torch.tensor([len(prefixes[i]) - 1 for i in batch])
        sums[batch] = _batch_losses(trained, tokens, first_labels=first_labels, num_labels=lengths - 1)
    return sums


def _batch_losses(trained: TrainedModel, tokens: Tensor, *, first_labels: Tensor, num_labels: Tensor) -> NumPyArray:
    """float64 [b]: nats of the labels from `first_labels` int64 [b] on, of rows int64 [b, L + 1]."""
    index = torch.arange(tokens.shape[1] - 1)
    counted = (index >= first_labels[:, None]) & (index < num_labels[:, None])
    states = trained.hidden_states(tokens[:, :-1].to(trained.device))[counted.to(trained.device)]
    labels = tokens[:, 1:][counted].to(trained.device)
    found = chunked_cross_entropy(
        states,
        trained.model.output_weight,
        labels,
        torch.ones_like(labels, dtype=torch.float32),
        impossible_ids=trained.model.impossible_ids,
    )
    of_row = torch.arange(len(tokens)).repeat_interleave(counted.sum(dim=1))
    return np.bincount(of_row.numpy(), weights=found.losses.double().cpu().numpy(), minlength=len(tokens))
