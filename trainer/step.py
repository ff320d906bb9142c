"""The arithmetic of one update, apart from the loop around it: micro-batches forward and backward, and validation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.attention import document_mask
from trainer.data import Batch
from trainer.loss import LossSums, LossTotals, global_sum
from trainer.model import Decoder


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Where and in which dtype matrix products are computed; weights stay float32."""

    device: torch.device
    autocast_dtype: torch.dtype | None = None
    """None: float32 throughout."""


def accumulate_gradients(
    model: Decoder, batch: Batch, *, micro_batch_size: int, document_masking: bool, precision: Precision
) -> LossTotals:
    """Add the gradient of a global batch's loss to `model`, micro-batch by micro-batch.

    The loss is the sum of weight x cross-entropy divided by the sum of weights over *all* ranks and micro-batches, so
    the division of the batch changes nothing. A batch whose weights sum to 0 adds no gradient.

    Args:
        model: on `precision.device`.
        batch: this rank's part of the global batch, in host memory.
        micro_batch_size: rows at a time.
        document_masking: whether attention and positions stay within segments.
        precision: device and dtype.
    """
    total_weight = global_sum(batch.loss_weights.sum(dtype=torch.float64)).item()
    sums = LossSums(precision.device)
    for micro in batch.split(micro_batch_size):
        weighted = _forward(model, micro, sums, document_masking=document_masking, precision=precision)
        if total_weight:
            torch.autograd.backward(weighted / total_weight)
    return sums.totals()


@torch.no_grad()
def evaluate(model: Decoder, batches: Iterable[Batch], *, document_masking: bool, precision: Precision) -> LossTotals:
    """Losses by role over `batches`, without gradients."""
    sums = LossSums(precision.device)
    for batch in batches:
        _forward(model, batch, sums, document_masking=document_masking, precision=precision)
    return sums.totals()


def _forward(model: Decoder, batch: Batch, sums: LossSums, *, document_masking: bool, precision: Precision) -> Tensor:
    """Weighted sum of one micro-batch's losses, counted in `sums`."""
    batch = batch.to(precision.device)
    mask = document_mask(batch.segments) if document_masking else None
    positions = batch.positions if document_masking else _row_positions(batch.positions)
    dtype = precision.autocast_dtype
    with torch.autocast(precision.device.type, dtype=dtype, enabled=dtype is not None):
        summed: tuple[Tensor, Tensor] = model(batch.input_ids, positions, mask, batch.labels, batch.loss_weights)
    weighted, losses = summed
    sums.add(weighted, losses, label_roles=batch.label_roles.flatten(), loss_weights=batch.loss_weights)
    return weighted


def _row_positions(positions: Tensor) -> Tensor:
    """Positions that run through the whole row: int32 [b, L]."""
    return torch.arange(positions.shape[1], dtype=torch.int32, device=positions.device).expand_as(positions)
