"""States of documents: for each layer the state of the last text token, and the mean over the text tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.inference.padding import padded_batches
from colophon.trainer.model.decoder import Decoder, row_positions
from colophon.trainer.probes.report import STATES

_TOKENS_AT_ONCE = 8192


@torch.no_grad()
def document_states(
    model: Decoder, prefix: Sequence[int], texts: Sequence[NumPyArray], *, layers: Sequence[int]
) -> Tensor:
    """float32 [num_layers, 2, num_documents, hidden_size] on the model's device.

    Index 0 of the second dimension is the state of a document's last text token, 1 the mean over its text tokens; the
    prefix is not counted.

    Args:
        model: a decoder.
        prefix: ids before each text.
        texts: ids of each text, at least one.
        layers: ascending; 0: the embedding; n: after layer n.
    """
    device = model.embed_tokens.weight.device
    rows = [np.concatenate([np.asarray(prefix, np.int64), text]) for text in texts]
    result = torch.empty(len(layers), len(STATES), len(rows), model.config.hidden_size, device=device)
    for batch, ids, row_lengths in padded_batches(rows, max_size=_TOKENS_AT_ONCE):
        input_ids, lengths = ids.to(device), row_lengths.to(device)
        index = torch.arange(input_ids.shape[1], device=device)
        is_text = (index >= len(prefix)) & (index < lengths[:, None])
        pooled: list[Tensor] = []

        def pool(
            states: Tensor, is_text: Tensor = is_text, lengths: Tensor = lengths, pooled: list[Tensor] = pooled
        ) -> None:
            states = states.float()
            last = states[torch.arange(len(states), device=states.device), lengths - 1]
            total = torch.einsum("blh,bl->bh", states, is_text.float())
            pooled.append(torch.stack([last, total / is_text.sum(dim=1, keepdim=True)]))

        model.hidden_states(input_ids, row_positions(input_ids), None, visit=pool)
        result[:, :, torch.from_numpy(batch).to(device)] = torch.stack([pooled[layer] for layer in layers])
    return result
