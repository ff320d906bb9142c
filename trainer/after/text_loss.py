"""What a trained model pays for texts, each alone in its row behind its context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from trainer.after.trained import TrainedModel
from trainer.loss import chunked_cross_entropy

NumPyArray = np.ndarray[Any, Any]
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
    for batch in _batches([len(row) for row in rows], tokens_at_once):
        first_labels = np.array([len(prefixes[i]) - 1 for i in batch])
        sums[batch] = _batch_losses(trained, [rows[i] for i in batch], first_labels)
    return sums


def _batches(lengths: Sequence[int], tokens_at_once: int) -> Iterator[NumPyArray]:
    """Indices of the rows of each batch, int64."""
    order, start = np.argsort(lengths, kind="stable")[::-1], 0
    while start < len(order):
        size = max(1, tokens_at_once // lengths[order[start]])
        yield order[start : start + size]
        start += size


def _batch_losses(trained: TrainedModel, rows: Sequence[NumPyArray], first_labels: NumPyArray) -> NumPyArray:
    """float64 [b]: nats of the labels from `first_labels` on, the longest row first."""
    num_labels = np.array([len(row) - 1 for row in rows])
    tokens = np.zeros((len(rows), num_labels[0] + 1), np.int64)  # any id can stand behind a row
    for row, padded in zip(rows, tokens, strict=True):
        padded[: len(row)] = row
    index = np.arange(num_labels[0])
    counted = (index >= first_labels[:, None]) & (index < num_labels[:, None])
    input_ids = torch.from_numpy(tokens[:, :-1]).to(trained.device)
    states = trained.hidden_states(input_ids)[torch.from_numpy(counted).to(trained.device)]
    labels = torch.from_numpy(tokens[:, 1:][counted]).to(trained.device)
    _, losses = chunked_cross_entropy(
        states,
        trained.model.output_weight,
        labels,
        torch.ones_like(labels, dtype=torch.float32),
        impossible_ids=trained.model.impossible_ids,
    )
    of_row = np.repeat(np.arange(len(rows)), counted.sum(axis=1))
    return np.bincount(of_row, weights=losses.double().cpu().numpy(), minlength=len(rows))
