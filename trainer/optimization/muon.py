"""Muon with AdamW's update size (arXiv 2502.16982), many matrices at a time, each on one process only.

All matrices of one shape are one tensor, so an iteration is three batched products instead of three for each matrix.
With several processes each of them takes a share of the matrices:

- where each has complete copies (DDP), the processes gather each other's updates;
- where each has rows of all matrices (FSDP), the rows of a share are sent to its process before, and the updates'
  rows back: two exchanges for a shape, and none within the iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from colophon.trainer.parallel import own_part

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""Coefficients of the quintic iteration, which bring singular values near to 1 in few steps; those of torch.optim.Muon,
from Keller Jordan's text on Muon."""
_SMALLEST_NORM = 1e-7
_RMS_OF_ADAMW = 0.2

Orthogonal: TypeAlias = Callable[[Tensor], Tensor]
"""From matrices [n, rows, columns] to their orthogonal form, of the same shape."""


class Muon(torch.optim.Optimizer):
    """Muon without weight decay, with Nesterov's momentum, for matrices. `torch.optim.Muon` has the same updates.

    m = μ m + (1 − μ) g;  p ← p − rate · 0.2 · sqrt(max(rows, columns)) · orthogonal((1 − μ) g + μ m)
    """

    def __init__(self, params: Any, *, momentum: float, newton_schulz_steps: int, compiled: bool = False) -> None:
        """`compiled`: whether the iterations are compiled, once for each shape: what is between the products is then
        one pass over the matrices instead of several."""
        super().__init__(params, {"lr": 0.0})
        self._momentum = momentum
        iterate: Any = _compiled_orthogonal() if compiled else orthogonal
        self._orthogonal: Orthogonal = partial(iterate, steps=newton_schulz_steps)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the current gradients."""
        for group in self.param_groups:
            for matrices in _by_shape(group["params"]):
                rows, columns = matrices[0].shape
                rate = group["lr"] * _RMS_OF_ADAMW * math.sqrt(max(rows, columns))
                updates = _orthogonal_parts(self._averages(matrices), matrices, orthogonal=self._orthogonal)
                torch._foreach_add_([own_part(p) for p in matrices], list(updates.unbind()), alpha=-rate)

    def _averages(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """This process's part of the average of each matrix's gradients."""
        for matrix in matrices:
            self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
        gradients = [own_part(p.grad) for p in matrices if p.grad is not None]
        averages = [own_part(self.state[p]["momentum_buffer"]) for p in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - self._momentum)
        return list(torch._foreach_lerp(gradients, averages, self._momentum))


def orthogonal(matrices: Tensor, *, steps: int) -> Tensor:
    """Matrices [n, rows, columns] with the singular vectors of each and singular values near 1: `steps` iterations of
    Newton and Schulz, in bfloat16."""
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    found = matrices.bfloat16()
    found = found.mT if is_tall else found
    found = found / torch.linalg.vector_norm(found, dim=(-2, -1), keepdim=True).clamp(min=_SMALLEST_NORM)
    for _ in range(steps):
        gram = found @ found.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        found = torch.baddbmm(found, polynomial, found, beta=_A)
    return found.mT if is_tall else found


@cache
def _compiled_orthogonal() -> Callable[..., Tensor]:
    return torch.compile(orthogonal, dynamic=False)


def _by_shape(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    found: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            found.setdefault(parameter.shape, []).append(parameter)
    yield from found.values()


def _orthogonal_parts(parts: list[Tensor], matrices: Sequence[Tensor], *, orthogonal: Orthogonal) -> Tensor:
    """This process's part of the orthogonal form of each matrix: [n, own rows, columns].

    Args:
        parts: this process's part of what is made orthogonal, one for each of the matrices.
        matrices: parameters of one shape.
        orthogonal: makes complete matrices orthogonal.
    """
    first = matrices[0]
    if isinstance(first, DTensor):
        return _of_shards(parts, num_rows=first.shape[0], group=first.device_mesh.get_group(), orthogonal=orthogonal)
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return _of_copies(parts, orthogonal=orthogonal)
    return orthogonal(torch.stack(parts)).to(parts[0].dtype)


def _of_copies(parts: list[Tensor], *, orthogonal: Orthogonal) -> Tensor:
    """Each process has all matrices, takes a share of them, and gets the updates of the others."""
    size, rank, (rows, columns) = dist.get_world_size(), dist.get_rank(), parts[0].shape
    each = -(-len(parts) // size)
    share = torch.zeros((each, rows, columns), dtype=torch.bfloat16, device=parts[0].device)
    own = parts[rank * each : (rank + 1) * each]
    if own:
        share[: len(own)] = orthogonal(torch.stack(own))
    gathered = share.new_empty((size * each, rows, columns))
    dist.all_gather_single(gathered, share)
    return gathered[: len(parts)].to(parts[0].dtype)


def _of_shards(parts: list[Tensor], *, num_rows: int, group: Any, orthogonal: Orthogonal) -> Tensor:
    """Each process has rows of all matrices, gets the complete matrices of its share, and sends the updates' rows.

    Matrices of 5 rows on 2 processes are cut into rows 0-2 and 3-4; the second part is padded with a row of zeros.
    """
    size, (own_rows, columns) = dist.get_world_size(group), parts[0].shape
    each, padded = -(-len(parts) // size), -(-num_rows // size)
    sent = torch.zeros((size * each, padded, columns), dtype=torch.bfloat16, device=parts[0].device)
    if own_rows:
        sent[: len(parts), :own_rows] = torch.stack(parts)
    pieces = _exchange(sent.view(size, each, padded, columns), group)  # [source, matrix, row, column]
    complete = pieces.transpose(0, 1).reshape(each, size * padded, columns)
    complete[:, :num_rows] = orthogonal(complete[:, :num_rows])
    rows = complete.view(each, size, padded, columns).transpose(0, 1).contiguous()
    found = _exchange(rows, group).view(size * each, padded, columns)
    return found[: len(parts), :own_rows].to(parts[0].dtype)


def _exchange(pieces: Tensor, group: Any) -> Tensor:
    """Piece i is sent to process i; piece i of the result is from process i."""
    received = torch.empty_like(pieces)
    dist.all_to_all_single(received, pieces, group=group)
    return received
