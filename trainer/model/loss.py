"""Weighted cross-entropy: the sum over all labels of the global batch, divided by the sum of their weights.

Logits of a large vocabulary are the largest tensor of training (131k ids x 32k tokens x 4 bytes = 17 GB), so they are
computed for a few tokens at a time, together with their gradient: one pass, without recomputation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from colophon.shards.schema import ROLE_NAMES, Role

CHUNK_TOKENS = 2048
"""Tokens whose logits are in memory at once: 1 GB in float32 at 131k ids."""
COMPILED_CHUNK_LOGITS = 2**29
"""Logits in memory at once where the loss is compiled: they and their gradients are 1 GB each in bfloat16, and no other
tensor is as wide. Larger chunks add to the output layer's gradient less often."""


class TokenLosses(NamedTuple):
    """Losses of `n` labels."""

    weighted: Tensor
    """Sum of weight x loss, a scalar with a gradient."""
    losses: Tensor
    """[n]: unweighted, in nats, without a gradient. The loss is 0 where the label is impossible and has weight 0."""
    hits: Tensor | None
    """bool [n]: whether no other id has a higher probability than the label; None without `with_hits`."""


def chunked_cross_entropy(
    hidden: Tensor,
    output_weight: Tensor,
    labels: Tensor,
    loss_weights: Tensor,
    *,
    impossible_ids: Tensor | None = None,
    chunk_tokens: int | None = None,
    compiled: bool = False,
    with_hits: bool = False,
) -> TokenLosses:
    """Cross-entropy of `hidden @ output_weight.T` against `labels`, never holding all logits.

    Args:
        hidden: [n, hidden_size], the model's last states. Matrix products have its dtype, the rest float32 or wider.
        output_weight: [vocabulary_size, hidden_size].
        labels: int64 [n].
        loss_weights: [n].
        impossible_ids: int64, ids that get no probability: padding of the vocabulary, and masked ids.
        chunk_tokens: tokens at a time; None: by the vocabulary's size. Changes memory, not the result.
        compiled: whether the operations on logits are compiled: fewer passes over them.
        with_hits: whether labels are compared with the most probable ids: one more pass over the logits.
    """
    with_grad = torch.is_grad_enabled() and (hidden.requires_grad or output_weight.requires_grad)
    if impossible_ids is None:
        impossible_ids = labels.new_empty(0)
    if chunk_tokens is None:
        chunk_tokens = tokens_at_once(len(output_weight), compiled=compiled)
    found = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, output_weight, labels, loss_weights, impossible_ids, chunk_tokens, compiled, with_grad, with_hits
    )
    return TokenLosses(*found)


def tokens_at_once(vocabulary_size: int, *, compiled: bool) -> int:
    """Tokens whose logits are in memory at once: a power of 2, so that chunks divide a micro-batch evenly."""
    return 1 << round(math.log2(COMPILED_CHUNK_LOGITS / vocabulary_size)) if compiled else CHUNK_TOKENS


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the gradients in its forward pass, chunk by chunk; backward only scales them."""

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
        with_hits: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        dtype, wide = hidden.dtype, torch.promote_types(hidden.dtype, torch.float32)
        weight = output_weight.to(dtype)
        losses = torch.empty(len(labels), dtype=wide, device=hidden.device)
        hits = torch.empty(len(labels), dtype=torch.bool, device=hidden.device) if with_hits else None
        grad_hidden = torch.empty_like(hidden) if with_grad else None
        grad_weight = torch.zeros_like(output_weight, dtype=wide) if with_grad else None
        of_logits = _compiled_losses_and_errors() if compiled else _losses_and_errors
        for start in range(0, len(labels), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            states = hidden[part]
            logits = (states @ weight.T).index_fill_(1, impossible_ids, float("-inf"))
            if hits is not None:
                torch.ge(logits.gather(1, labels[part, None])[:, 0], logits.amax(dim=1), out=hits[part])
            found, errors = of_logits(logits, labels[part], wide, with_grad)
            del logits
            losses[part] = found.masked_fill_(found.isinf() & (loss_weights[part] == 0), 0.0)
            if grad_hidden is not None and grad_weight is not None and errors is not None:
                # Label weights multiply a tensor as wide as the model, not one as wide as the vocabulary.
                label_weights = loss_weights[part, None]
                torch.mul(errors @ weight, label_weights, out=grad_hidden[part])
                weighted = (states * label_weights).to(dtype)
                if dtype == wide:
                    grad_weight.addmm_(errors.T, weighted)
                else:
                    grad_weight += errors.T @ weighted
        if with_grad:
            ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(losses, *([] if hits is None else [hits]))
        return (losses * loss_weights).sum(), losses, hits

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors  # not used elsewhere: scaled in place
        return grad_hidden.mul_(grads[0]), grad_weight.mul_(grads[0]), *[None] * 7


def _losses_and_errors(
    logits: Tensor, labels: Tensor, wide: torch.dtype, with_grad: bool
) -> tuple[Tensor, Tensor | None]:
    """Losses [chunk] in `wide`, and their gradient for the logits [chunk, vocabulary_size], probability - one-hot, in
    the logits' dtype. The cost is the number of passes over tensors of that width."""
    log_probs = torch.log_softmax(logits, dim=-1, dtype=wide)
    losses = -log_probs.gather(1, labels[:, None])[:, 0]
    if not with_grad:
        return losses, None
    if torch.compiler.is_compiling():  # a scatter would store the probabilities in `wide`
        is_label = torch.arange(logits.shape[1], device=logits.device) == labels[:, None]
        return losses, (log_probs.exp() - is_label.to(wide)).to(logits.dtype)
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
    hits_by_role: tuple[int, ...]
    """[7]: number of labels that no other id exceeds in probability; 0 without `with_hits`."""
    losses_by_group: tuple[float, ...] = ()
    """[num_groups]: sum of the losses of text labels, by the group of their document."""
    labels_by_group: tuple[int, ...] = ()
    """[num_groups]: number of text labels."""

    @classmethod
    def of(cls, values: Sequence[float]) -> LossTotals:
        """The totals of the values that `LossSums.over_all_ranks` has."""
        weighted, weight, *sums = values
        roles = len(ROLE_NAMES)
        losses, labels, hits, groups = (
            sums[:roles],
            sums[roles : 2 * roles],
            sums[2 * roles : 3 * roles],
            sums[3 * roles :],
        )
        return cls(
            weighted=weighted,
            weight=weight,
            losses_by_role=tuple(losses),
            labels_by_role=tuple(map(round, labels)),
            hits_by_role=tuple(map(round, hits)),
            losses_by_group=tuple(groups[: len(groups) // 2]),
            labels_by_group=tuple(map(round, groups[len(groups) // 2 :])),
        )

    @property
    def loss(self) -> float | None:
        """The training objective: the weighted mean; None where no label has loss weight."""
        return self.weighted / self.weight if self.weight else None

    @property
    def tokens(self) -> int:
        """Labels that are not padding."""
        return sum(self.labels_by_role) - self.labels_by_role[Role.PAD]

    def mean(self, role: Role) -> float | None:
        """Mean unweighted loss in nats of the labels of a role; None where there are none."""
        labels = self.labels_by_role[role]
        return self.losses_by_role[role] / labels if labels else None

    def accuracy(self, role: Role) -> float | None:
        """Share of the labels of a role that no other id exceeds in probability; None where there are none."""
        labels = self.labels_by_role[role]
        return self.hits_by_role[role] / labels if labels else None


class LossSums:
    """Losses summed on the device over micro-batches, for reporting."""

    def __init__(self, device: torch.device, *, num_groups: int = 0) -> None:
        self._overall = torch.zeros(2, dtype=torch.float64, device=device)
        self._by_role = torch.zeros((3, len(ROLE_NAMES)), dtype=torch.float64, device=device)
        self._by_group = torch.zeros((2, num_groups), dtype=torch.float64, device=device)
        self._roles = torch.arange(len(ROLE_NAMES), device=device)[:, None]

    def add(
        self, found: TokenLosses, *, label_roles: Tensor, loss_weights: Tensor, label_groups: Tensor | None = None
    ) -> None:
        """Add one micro-batch: the losses of its labels, the labels' roles, int64 [n], and their groups, int64
        [num_columns, n]."""
        weight = loss_weights.sum(dtype=torch.float64)
        self._overall += torch.stack([found.weighted.detach().double(), weight])
        has_role = label_roles == self._roles  # [7, n]
        counted = [torch.where(has_role, found.losses.double(), 0.0), has_role]
        if found.hits is not None:
            counted.append(has_role & found.hits)
        if label_groups is not None:
            of_text = torch.stack([part[Role.TEXT].double() for part in counted[:2]])  # [2, n]
            of_groups = of_text.repeat(1, len(label_groups))
            self._by_group.index_add_(1, label_groups.flatten(), of_groups)
        self._by_role[: len(counted)] += torch.stack([part.sum(dim=1, dtype=torch.float64) for part in counted])

    def over_all_ranks(self) -> Tensor:
        """float64 [n]: the sums over all ranks, on the device, for `LossTotals.of`."""
        return global_sum(torch.cat([self._overall, self._by_role.flatten(), self._by_group.flatten()]))

    def totals(self) -> LossTotals:
        """The sums over all ranks, on the host; waits for the device, once."""
        return LossTotals.of(self.over_all_ranks().tolist())


def global_sum(values: Tensor) -> Tensor:
    """The sum of `values` over all ranks; `values` itself when there is one."""
    if dist.is_available() and dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values
