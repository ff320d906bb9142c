"""CPU kernels for torch's attention with variable lengths, which torch itself has for GPUs only.

They are registered under torch's own operator, so that its checks, its autograd formula, its fake kernels (shapes under
the compiler) and its place in compiled graphs are those of a GPU run; only the arithmetic is ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import varlen


def register() -> None:
    """Give the operator and its backward CPU kernels; safe to call more than once."""
    varlen._varlen_attn.register_kernel("cpu")(_forward)
    varlen._varlen_attn_backward.register_kernel("cpu")(_backward)


def _forward(  # noqa: PLR0917 - torch's signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    scale: float | None = None,
    window_size: list[int] | None = None,
    enable_gqa: bool = False,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    _check_as_the_cuda_kernel_does(query, key, value, cu_q, max_q)
    assert torch.equal(cu_q, cu_k)
    assert (is_causal, scale, window_size, enable_gqa, max_q == max_k) == (True, None, [-1, 0], True, True)
    out = torch.empty_like(query)
    for part, q, k, v, _groups in _segments(query, key, value, cu_q):
        out[part] = (_weights(q, k) @ v).transpose(0, 1).to(query.dtype)
    return out, torch.zeros(query.shape[1], query.shape[0]), torch.zeros(2, dtype=torch.uint64)


def _backward(  # noqa: PLR0917 - torch's signature
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    assert grad_out.stride(-1) == 1
    grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    for part, q, k, v, groups in _segments(query, key, value, cu_q):
        error = grad_out[part].transpose(0, 1).double()
        weights, scale = _weights(q, k), q.shape[-1] ** -0.5
        by_weight = error @ v.transpose(1, 2)
        scores = weights * (by_weight - (by_weight * weights).sum(-1, keepdim=True)) * scale
        shared = [(scores.transpose(1, 2) @ q), (weights.transpose(1, 2) @ error)]
        found = [scores @ k, *(each.unflatten(0, (-1, groups)).sum(1) for each in shared)]
        for grad, one in zip(grads, found, strict=True):
            grad[part] = one.transpose(0, 1).to(grad.dtype)
    return grads


def _check_as_the_cuda_kernel_does(query: Tensor, key: Tensor, value: Tensor, cu: Tensor, longest: int) -> None:
    """ATen's flash_api.cpp, mha_varlen_fwd: inputs that it refuses, or computes wrong results from."""
    assert cu.dtype == torch.int32
    assert cu.is_contiguous()
    assert query.shape[-1] % 8 == 0
    assert query.shape[-1] <= 256
    assert query.dtype == key.dtype == value.dtype
    assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
    ends = cu.tolist()
    assert ends[0] == 0
    assert ends[-1] == len(query)
    assert all(0 <= end - start <= longest for start, end in itertools.pairwise(ends))


def _segments(
    query: Tensor, key: Tensor, value: Tensor, cu: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, int]]:
    groups = query.shape[1] // key.shape[1]
    for start, end in itertools.pairwise(cu.tolist()):
        q, k, v = (each[start:end].transpose(0, 1).double() for each in (query, key, value))
        yield slice(start, end), q, k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0), groups


def _weights(query: Tensor, key: Tensor) -> Tensor:
    scores = query @ key.transpose(1, 2) * query.shape[-1] ** -0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights: Tensor = scores.masked_fill(future, float("-inf")).softmax(-1)
    return weights
