"""The arithmetic of one update, apart from the loop around it: micro-batches forward and backward, and validation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.attention import AttentionKind, choose_attention, document_mask
from trainer.config import TrainConfig
from trainer.data import Batch
from trainer.loss import LossSums, LossTotals, global_sum
from trainer.model import row_positions
from trainer.parallel import SharedModel


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """How losses are computed."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    """Of activations and matrix products; weights stay float32."""
    attention: AttentionKind = "sdpa"
    document_masking: bool = True

    @classmethod
    def of(cls, config: TrainConfig, *, device: torch.device) -> Arithmetic:
        """What the settings mean on a device."""
        wants_bfloat16 = config.dtype == "bfloat16" or (config.dtype == "auto" and device.type == "cuda")
        dtype = torch.bfloat16 if wants_bfloat16 else torch.float32
        return cls(
            device=device,
            dtype=dtype,
            attention=choose_attention(device, dtype) if config.attention == "auto" else config.attention,
            document_masking=config.document_masking,
        )


def accumulate_gradients(
    model: SharedModel, batch: Batch, *, micro_batch_size: int, arithmetic: Arithmetic
) -> LossTotals:
    """Add the gradient of a global batch's loss to `model`, micro-batch by micro-batch.

    The loss is the sum of weight x cross-entropy divided by the sum of weights over *all* ranks and micro-batches, so
    the division of the batch changes nothing. A batch whose weights sum to 0 adds no gradient.

    Args:
        model: on the device of `arithmetic`.
        batch: this rank's part of the global batch, in host memory; all ranks have equally many rows.
        micro_batch_size: rows at a time.
        arithmetic: device, dtype, masks.
    """
    weights = batch.loss_weights.sum(dtype=torch.float64)
    total_weight = global_sum(weights.to(arithmetic.device)).item()
    sums = LossSums(arithmetic.device)
    micros = list(batch.split(micro_batch_size))
    for number, micro in enumerate(micros, 1):
        with model.accumulating(is_last=number == len(micros)):
            weighted = _forward(model, micro, sums, arithmetic=arithmetic)
            if total_weight:
                # Wrappers average gradients over the ranks; the loss wants their sum.
                torch.autograd.backward(weighted * (model.world.size / total_weight))
    return sums.totals()


@torch.no_grad()
def evaluate(model: SharedModel, batches: Iterable[Batch], *, arithmetic: Arithmetic) -> LossTotals:
    """Losses by role over `batches`, without gradients; all ranks have equally many."""
    sums = LossSums(arithmetic.device)
    for batch in batches:
        _forward(model, batch, sums, arithmetic=arithmetic)
    model.release()
    return sums.totals()


def _forward(model: SharedModel, batch: Batch, sums: LossSums, *, arithmetic: Arithmetic) -> Tensor:
    """Weighted sum of one micro-batch's losses, counted in `sums`."""
    batch = batch.to(arithmetic.device)
    if arithmetic.document_masking:
        mask, positions = document_mask(batch.input_segments, kind=arithmetic.attention), batch.positions
    else:
        mask, positions = None, row_positions(batch.input_segments)
    inputs = (batch.input_ids, positions, mask, batch.labels, batch.loss_weights)
    weighted, losses = model.forward(*inputs, dtype=arithmetic.dtype)
    sums.add(weighted, losses, label_roles=batch.label_roles.flatten(), loss_weights=batch.loss_weights)
    return weighted
