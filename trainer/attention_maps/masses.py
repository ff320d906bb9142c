"""Attention of text tokens on the parts of their row, from attention weights that are computed in full.

The attention of a text token sums to 1. Its mass on each part is averaged over a document's text tokens. `uniform` is
what the parts would get if each token attended evenly to all that it sees: a part of many tokens gets much of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.attention_maps.bins import NUM_TOKENS
from colophon.trainer.attention_maps.parts import LabelledRows
from colophon.trainer.inference.padding import padded_batches
from colophon.trainer.inference.trained_model import TrainedModel
from colophon.trainer.model.attention import attend
from colophon.trainer.model.decoder import Attend, Decoder, row_positions

SeeWeights = Callable[[int, Tensor], None]
"""Receives a layer's number and its attention weights, float32 [b, heads, L, L]."""

_PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class AttentionMasses:
    """Attention masses of `n` documents on `k` parts."""

    mass: NumPyArray
    """float32 [n, num_layers, num_heads, k]; sums to 1 over parts."""
    uniform: NumPyArray
    """float32 [n, k]: masses if each text token attended evenly to all that it sees; sums to 1."""
    tokens: NumPyArray
    """int64 [n, k]: how many tokens each part has."""


def attention_masses(trained: TrainedModel, rows: LabelledRows, texts: Sequence[NumPyArray]) -> AttentionMasses:
    """The attention of text tokens on each part, averaged over the text tokens of a document.

    Args:
        trained: the model.
        rows: the ids before each text, with their parts.
        texts: ids of each, at least one.
    """
    config, num_parts = trained.model.config, len(rows.part_names)
    mass = np.zeros((len(texts), config.num_layers, config.num_heads, num_parts), np.float32)
    uniform = np.zeros((len(texts), num_parts), np.float32)
    tokens = np.zeros((len(texts), num_parts), np.int64)
    for batch, input_ids, parts, is_text in _batches(trained, rows, texts):
        is_part = (parts[:, :, None] == torch.arange(num_parts, device=parts.device)).float()  # padding is of no part
        share = is_text.float() / is_text.sum(dim=1, keepdim=True)
        seen = is_part.cumsum(dim=1) / torch.arange(1, parts.shape[1] + 1, device=parts.device)[:, None]
        uniform[batch] = torch.einsum("bq,bqp->bp", share, seen).cpu().numpy()
        tokens[batch] = is_part.sum(dim=1).long().cpu().numpy()

        def see(
            layer: int, weights: Tensor, share: Tensor = share, is_part: Tensor = is_part, batch: NumPyArray = batch
        ) -> None:
            received = torch.einsum("bq,bhqk->bhk", share, weights)
            mass[batch, layer] = torch.einsum("bhk,bkp->bhp", received, is_part).cpu().numpy()

        watch_attention(trained.model, input_ids, see, dtype=trained.dtype)
    return AttentionMasses(mass=mass, uniform=uniform, tokens=tokens)


def meta_token_attention(
    trained: TrainedModel, rows: LabelledRows, texts: Sequence[NumPyArray], *, num_tokens: int = NUM_TOKENS
) -> list[NumPyArray | None]:
    """Each document's attention vector, float32 [num_tokens * num_meta_tokens]; None for a shorter text.

    It holds the weights from the first `num_tokens` text tokens to each meta token in the last layer, averaged over
    heads.
    """
    long_enough = [i for i, text in enumerate(texts) if len(text) >= num_tokens]
    found: list[NumPyArray | None] = [None] * len(texts)
    cropped = [texts[i][:num_tokens] for i in long_enough]
    long_rows = LabelledRows(
        part_names=rows.part_names,
        prefixes=[rows.prefixes[i] for i in long_enough],
        parts=[rows.parts[i] for i in long_enough],
        kept=rows.kept[long_enough],
        excluded={},
    )
    last = trained.model.config.num_layers - 1
    for batch, input_ids, _, is_text in _batches(trained, long_rows, cropped):
        start = int(is_text[0].long().argmax())  # the same in every row: all have the same meta tokens before the text
        vectors: list[Tensor] = []

        def see(layer: int, weights: Tensor, start: int = start, vectors: list[Tensor] = vectors) -> None:
            if layer == last:
                # Keys: bos 0, boc 1, meta tokens 2 to start - 2, eoc start - 1.
                vectors.append(weights[:, :, start:, 2 : start - 1].mean(dim=1).flatten(1))

        watch_attention(trained.model, input_ids, see, dtype=trained.dtype)
        for number, vector in zip(batch, vectors[0].cpu().numpy(), strict=True):
            found[long_enough[number]] = vector
    return found


@torch.no_grad()
def watch_attention(model: Decoder, input_ids: Tensor, see: SeeWeights, *, dtype: torch.dtype | None = None) -> Tensor:
    """The last states of rows that are one segment each; calls `see` with each layer's attention weights.

    Args:
        model: the decoder to watch.
        input_ids: int64 [b, L], on the model's device.
        see: called for each layer with float32 [b, heads, L, L], queries before keys.
        dtype: the type of activations; None: that of the weights.
    """

    def watched(layer: int) -> Attend:
        def attends(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            see(layer, attention_weights(query, key))
            return attend(query, key, value, mask=None)

        return attends

    masks = [watched(layer) for layer in range(len(model.layers))]
    return model.hidden_states(input_ids, row_positions(input_ids), masks, dtype=dtype)


def attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """float32 [b, heads, L, L]: softmax of q·k / sqrt(head_size) over the keys that a causal query sees.

    Args:
        query: [b, heads, L, head_size].
        key: [b, kv_heads, L, head_size]; each serves heads / kv_heads consecutive heads.
    """
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query.float() @ key.float().transpose(-1, -2) / math.sqrt(query.shape[-1])
    unseen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(unseen, -math.inf).softmax(dim=-1)


def _batches(
    trained: TrainedModel, rows: LabelledRows, texts: Sequence[NumPyArray]
) -> Iterator[tuple[NumPyArray, Tensor, Tensor, Tensor]]:
    """Yield batches of documents.

    Yields:
        Numbers of the documents int64 [b]; on the device their ids int64 [b, L], the part of each token int64 [b, L]
        (-1 after a row's end), and which are text tokens, bool [b, L].
    """
    whole = [np.concatenate([prefix, text]) for prefix, text in zip(rows.prefixes, texts, strict=True)]
    text_part = len(rows.part_names) - 1
    for batch, input_ids, lengths in padded_batches(whole, max_size=_PAIRS_AT_ONCE, cost=2):
        parts = np.full(input_ids.shape, -1, np.int64)
        for row, number, length in zip(parts, batch, lengths.tolist(), strict=True):
            before = rows.parts[number]
            row[: len(before)], row[len(before) : length] = before, text_part
        on_device = torch.from_numpy(parts).to(trained.device)
        yield batch, input_ids.to(trained.device), on_device, on_device == text_part
