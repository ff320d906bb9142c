"""Weighted cross-entropy: the sum over all labels of the global batch, divided by the sum of their weights.

Logits of a large vocabulary are the largest tensor of training (131k ids x 32k tokens x 4 bytes = 17 GB), so they are
made for a few tokens at a time, and their gradient is taken while they are there: one pass, nothing recomputed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from shards.schema import ROLE_NAMES, Role

CHUNK_TOKENS = 2048
"""Tokens whose logits are in memory at once: 1 GB in float32 at 131k ids."""


def chunked_cross_entropy(
    hidden: Tensor,
    output_weight: Tensor,
    labels: Tensor,
    loss_weights: Tensor,
    *,
    num_ids: int,
    chunk_tokens: int = CHUNK_TOKENS,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `hidden @ output_weight.T` against `labels`, never holding all logits.

    Args:
        hidden: [n, hidden_size], the model's last states.
        output_weight: [vocabulary_size, hidden_size].
        labels: int64 [n], below `num_ids`.
        loss_weights: [n].
        num_ids: ids that exist; the vocabulary's padding beyond them gets no probability.
        chunk_tokens: tokens at a time. Changes memory, not the result.

    Returns:
        sum of weight x loss, a scalar that gradients flow from; and the unweighted losses [n], for reporting only.
    """
    with_grad = torch.is_grad_enabled() and (hidden.requires_grad or output_weight.requires_grad)
    dtype = hidden.dtype
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
    weighted, losses = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, output_weight, labels, loss_weights, num_ids, chunk_tokens, dtype, with_grad
    )
    return weighted, losses


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Takes the gradients in its forward pass, chunk by chunk; backward only scales them."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes positions
        ctx: Any,
        hidden: Tensor,
        output_weight: Tensor,
        labels: Tensor,
        loss_weights: Tensor,
        num_ids: int,
        chunk_tokens: int,
        dtype: torch.dtype,
        with_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(dtype, torch.float32)
        weight = output_weight.to(dtype)
        losses = torch.empty(len(labels), dtype=wide, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if with_grad else None
        grad_weight = torch.zeros_like(output_weight) if with_grad else None
        for start in range(0, len(labels), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            states = hidden[part].to(dtype)
            log_probs = _log_probs(states, weight, num_ids=num_ids, dtype=wide)
            losses[part] = -log_probs.gather(1, labels[part, None])[:, 0]
            if grad_hidden is not None and grad_weight is not None:
                grad_logits = _grad_logits(log_probs, labels[part], loss_weights[part]).to(dtype)
                grad_hidden[part] = grad_logits @ weight
                grad_weight += grad_logits.T @ states
        if with_grad:
            ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(losses)
        return (losses * loss_weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grads[0], grad_weight * grads[0], None, None, None, None, None, None


def _log_probs(states: Tensor, weight: Tensor, *, num_ids: int, dtype: torch.dtype) -> Tensor:
    """[chunk, vocabulary_size] in `dtype`; ids from `num_ids` on have probability 0."""
    logits = (states @ weight.T).to(dtype)
    logits[:, num_ids:] = float("-inf")
    return torch.log_softmax(logits, dim=-1)


def _grad_logits(log_probs: Tensor, labels: Tensor, loss_weights: Tensor) -> Tensor:
    """Gradient of sum(weight x loss) for the logits, weight x (probability - one-hot); overwrites `log_probs`."""
    grad = log_probs.exp_()
    grad.scatter_add_(1, labels[:, None], grad.new_full((len(labels), 1), -1.0))
    return grad.mul_(loss_weights[:, None])


@dataclass(frozen=True, kw_only=True)
class LossTotals:
    """Losses summed over a global batch or a validation set."""

    weighted: float
    """Sum of weight x loss."""
    weight: float
    """Sum of weights."""
    losses_by_role: tuple[float, ...]
    """[7]: sum of unweighted losses in nats, by the role of the label."""
    labels_by_role: tuple[int, ...]
    """[7]: number of labels."""

    @property
    def loss(self) -> float | None:
        """What training minimises: the weighted mean; None where no label is paid."""
        return self.weighted / self.weight if self.weight else None

    @property
    def tokens(self) -> int:
        """Labels that are not padding."""
        return sum(self.labels_by_role) - self.labels_by_role[Role.PAD]

    def mean(self, role: Role) -> float | None:
        """Mean unweighted loss in nats of the labels of a role; None where there are none."""
        labels = self.labels_by_role[role]
        return self.losses_by_role[role] / labels if labels else None


class LossSums:
    """Losses summed on the device over micro-batches, for reporting."""

    def __init__(self, device: torch.device) -> None:
        self._overall = torch.zeros(2, dtype=torch.float64, device=device)
        self._by_role = torch.zeros((2, len(ROLE_NAMES)), dtype=torch.float64, device=device)

    def add(self, weighted: Tensor, losses: Tensor, *, label_roles: Tensor, loss_weights: Tensor) -> None:
        """Count one micro-batch: its weighted sum, and its labels' losses and roles, both [n]."""
        self._overall += torch.stack([weighted.detach().double(), loss_weights.sum(dtype=torch.float64)])
        counted = torch.stack([losses.double(), torch.ones_like(losses, dtype=torch.float64)])
        self._by_role.index_add_(1, label_roles.long(), counted)

    def totals(self) -> LossTotals:
        """The sums over all ranks, on the host; waits for the device once."""
        weighted, weight, *by_role = global_sum(torch.cat([self._overall, self._by_role.flatten()])).tolist()
        losses, labels = by_role[: len(ROLE_NAMES)], by_role[len(ROLE_NAMES) :]
        return LossTotals(
            weighted=weighted, weight=weight, losses_by_role=tuple(losses), labels_by_role=tuple(map(round, labels))
        )


def global_sum(values: Tensor) -> Tensor:
    """The sum of `values` over all ranks; `values` itself when there is one."""
    if dist.is_available() and dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values
