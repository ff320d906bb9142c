"""The arithmetic of one update and of one validation: micro-batches forward and backward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from colophon.trainer.config import TrainConfig
from colophon.trainer.data.batch import Batch
from colophon.trainer.device.float8 import why_not_float8
from colophon.trainer.errors import TrainerError
from colophon.trainer.model.attention import AttentionKind, choose_attention, document_mask, why_not
from colophon.trainer.model.decoder import row_positions
from colophon.trainer.model.loss import LossSums, LossTotals, TokenLosses
from colophon.trainer.parallel import SharedModel


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """The device, types and masks with which losses are computed."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    """Type of activations and matrix products; weights stay float32."""
    float8: bool = False
    """Whether the layers' matrix products are in float8, see `trainer.device.float8`; `dtype` is then bfloat16."""
    attention: AttentionKind = "sdpa"
    document_masking: bool = True
    with_hits: bool = False
    """Whether each label is compared with the most probable id."""
    num_groups: int = 0
    """Groups of text by which losses are summed, too."""

    @classmethod
    def of(
        cls, config: TrainConfig, *, device: torch.device, with_hits: bool = False, num_groups: int = 0
    ) -> Arithmetic:
        """The arithmetic of a run on a device.

        Raises:
            TrainerError: the device does not support the dtype or the kind of attention in the settings.
        """
        float8 = config.dtype == "float8"
        if float8 and (reason := why_not_float8(device)):
            raise TrainerError(f"dtype 'float8': {reason}; auto selects a dtype that the device has")
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        wants_bfloat16 = config.dtype in {"bfloat16", "float8"} or (config.dtype == "auto" and has_bfloat16)
        dtype = torch.bfloat16 if wants_bfloat16 else torch.float32
        head_size = config.model.head_size
        attention = config.attention
        if attention == "auto":
            attention = choose_attention(device, dtype, head_size=head_size)
        elif reason := why_not(attention, device, dtype, head_size=head_size):
            raise TrainerError(f"attention {attention!r}: {reason}; sdpa runs everywhere, auto selects the fastest")
        return cls(
            device=device,
            dtype=dtype,
            float8=float8,
            attention=attention,
            document_masking=config.document_masking,
            with_hits=with_hits,
            num_groups=num_groups,
        )


@dataclass(frozen=True, kw_only=True)
class GradientSums:
    """The end of the micro-batches of one update."""

    losses: LossSums
    """The sums of this rank, on the device."""
    weight: float
    """Sum of the weights of the labels, over all ranks. 0: there is no gradient."""


def accumulate_gradients(
    model: SharedModel, batch: Batch, *, micro_batch_size: int, arithmetic: Arithmetic
) -> GradientSums:
    """Add the gradient of a global batch's loss to `model`, micro-batch by micro-batch.

    The loss is the sum of weight x cross-entropy divided by the sum of weights over *all* ranks and micro-batches, so
    it does not depend on how the batch is divided. A batch whose weights sum to 0 adds no gradient. Nothing here waits
    for the device.

    Args:
        model: on the device of `arithmetic`.
        batch: this rank's part of the global batch, in host memory; all ranks have equally many rows.
        micro_batch_size: rows at a time.
        arithmetic: device, dtype, masks.
    """
    total_weight = model.world.total(float(batch.loss_weights.numpy().sum(dtype=np.float64)))
    sums = LossSums(arithmetic.device, num_groups=arithmetic.num_groups)
    micros = list(batch.split(micro_batch_size))
    for number, micro in enumerate(micros, 1):
        with model.accumulating(is_last=number == len(micros)):
            weighted = _forward(model, micro, sums, arithmetic=arithmetic).weighted
            if total_weight:
                # DDP and FSDP average gradients over the ranks; the loss needs their sum.
                torch.autograd.backward(weighted * (model.world.size / total_weight))
    return GradientSums(losses=sums, weight=total_weight)


@torch.no_grad()
def validation_losses(model: SharedModel, batches: Iterable[Batch], *, arithmetic: Arithmetic) -> LossTotals:
    """Losses by role over `batches`, without gradients; all ranks have equally many batches.

    A compiled model computes all of them with the number of rows of the first, so that one number is compiled.
    """
    sums, num_rows = LossSums(arithmetic.device, num_groups=arithmetic.num_groups), 0
    for batch in batches:
        num_rows = num_rows or len(batch)
        same = batch if model.decoder.compiled is None else batch.padded(num_rows)
        _forward(model, same, sums, arithmetic=arithmetic)
    model.release()
    return sums.totals()


def _forward(model: SharedModel, batch: Batch, sums: LossSums, *, arithmetic: Arithmetic) -> TokenLosses:
    """Losses of one micro-batch, also added to `sums`."""
    there = batch.to(arithmetic.device)
    losses = token_losses(model, there, on_host=batch, arithmetic=arithmetic)
    sums.add(
        losses,
        label_roles=there.label_roles.flatten(),
        loss_weights=there.loss_weights,
        label_groups=there.label_groups,
    )
    return losses


def token_losses(model: SharedModel, batch: Batch, *, on_host: Batch, arithmetic: Arithmetic) -> TokenLosses:
    """Losses of one micro-batch on the device of `arithmetic`; `on_host` is the same batch in host memory."""
    if arithmetic.document_masking:
        # The number of varlen's bounds is needed on the host; the other masks are built on the device.
        source = on_host if arithmetic.attention == "varlen" else batch
        mask = document_mask(
            source.input_segments,
            kind=arithmetic.attention,
            device=arithmetic.device,
            padded=model.decoder.is_one_graph,
        )
        positions = batch.positions
    else:
        mask, positions = None, row_positions(batch.input_segments)
    inputs = (batch.input_ids, positions, mask, batch.labels, batch.loss_weights)
    return model.forward(*inputs, dtype=arithmetic.dtype, with_hits=arithmetic.with_hits)
