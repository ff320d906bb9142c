"""Weighted cross-entropy: the sum over all labels of the global batch, divided by the sum of their weights.

Logits of a large vocabulary are the largest tensor of training (131k ids x 32k tokens x 4 bytes = 17 GB), so they are
made for a few tokens at a time, and their gradient is taken while they are there: one pass, nothing recomputed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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
    impossible_ids: Tensor | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `hidden @ output_weight.T` against `labels`, never holding all logits.

    Args:
        hidden: [n, hidden_size], the model's last states. Matrix products have its dtype, the rest is float32 or wider.
        output_weight: [vocabulary_size, hidden_size].
        labels: int64 [n].
        loss_weights: [n].
        impossible_ids: int64, ids that get no probability: padding of the vocabulary, and what is masked.
        chunk_tokens: tokens at a time. Changes memory, not the result.
        compiled: whether what happens to the logits is compiled: fewer passes over them.

    Returns:
        sum of weight x loss, a scalar that gradients flow from; and the unweighted losses [n], for reporting only. A
        label that is impossible and has weight 0 has the loss 0.
    """
    with_grad = torch.is_grad_enabled() and (hidden.requires_grad or output_weight.requires_grad)
    if impossible_ids is None:
        impossible_ids = labels.new_empty(0)
    weighted, losses = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, output_weight, labels, loss_weights, impossible_ids, chunk_tokens, compiled, with_grad
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
        impossible_ids: Tensor,
        chunk_tokens: int,
        compiled: bool,
        with_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        dtype, wide = hidden.dtype, torch.promote_types(hidden.dtype, torch.float32)
        weight = output_weight.to(dtype)
        losses = torch.empty(len(labels), dtype=wide, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if with_grad else None
        grad_weight = torch.zeros_like(output_weight, dtype=wide) if with_grad else None
        of_logits = _compiled_losses_and_errors() if compiled else _losses_and_errors
        for start in range(0, len(labels), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            states = hidden[part]
            found, errors = of_logits(states @ weight.T, labels[part], impossible_ids, wide, with_grad)
            losses[part] = found.masked_fill_(found.isinf() & (loss_weights[part] == 0), 0.0)
            if grad_hidden is not None and grad_weight is not None and errors is not None:
                # A label's weight multiplies what is as wide as the model, not what is as wide as the vocabulary.
                paid = loss_weights[part, None]
                torch.mul(errors @ weight, paid, out=grad_hidden[part])
                weighted = (states * paid).to(dtype)
                if dtype == wide:
                    grad_weight.addmm_(errors.T, weighted)
                else:
                    grad_weight += errors.T @ weighted
        if with_grad:
            ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(losses)
        return (losses * loss_weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors  # nobody else's: scaled where they are
        return grad_hidden.mul_(grads[0]), grad_weight.mul_(grads[0]), None, None, None, None, None, None


def _losses_and_errors(
    logits: Tensor, labels: Tensor, impossible_ids: Tensor, wide: torch.dtype, with_grad: bool
) -> tuple[Tensor, Tensor | None]:
    """Losses [chunk] in `wide`, and their gradient for the logits [chunk, vocabulary_size], probability - one-hot, in
    the logits' dtype. Overwrites `logits`: passes over a tensor of that width are what this costs."""
    log_probs = torch.log_softmax(logits.index_fill_(1, impossible_ids, float("-inf")), dim=-1, dtype=wide)
    losses = -log_probs.gather(1, labels[:, None])[:, 0]
    if not with_grad:
        return losses, None
    errors = log_probs.exp_().scatter_add_(1, labels[:, None], log_probs.new_full((len(labels), 1), -1.0))
    return losses, errors.to(logits.dtype)


@cache
def _compiled_losses_and_errors() -> Callable[..., tuple[Tensor, Tensor | None]]:
    return torch.compile(_losses_and_errors, dynamic=False)


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
