"""Causal attention, within documents or across them.

A mask is built once a micro-batch and serves all layers. On CUDA it is a FlexAttention block mask: blocks that hold no
pair of one segment cost nothing. Elsewhere it is a dense boolean mask for `scaled_dot_product_attention`. Both are
block-diagonal and causal, so a token sees itself and what stands before it in its own segment; padding has a segment
of its own and never sees text, nor text padding. No mask means plain causal attention over the whole row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

Mask: TypeAlias = Tensor | BlockMask | None


def document_mask(segments: Tensor) -> Tensor | BlockMask:
    """The mask of rows whose inputs' segments are `segments`, int32 [b, L], for the device they are on."""
    if segments.is_cuda and find_spec("triton") is not None:
        return block_mask(segments, compiled=True)
    return dense_mask(segments)


def dense_mask(segments: Tensor) -> Tensor:
    """bool [b, 1, L, L]: whether query i may see key j. Memory: L² bytes a row."""
    same = segments[:, :, None] == segments[:, None, :]
    return same.tril()[:, None]


def block_mask(segments: Tensor, *, compiled: bool) -> BlockMask:
    """The same mask for FlexAttention, in blocks of 128 x 128."""

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (segments[row, query] == segments[row, key])

    rows, length = segments.shape
    create = _compiled_create_block_mask() if compiled else create_block_mask
    return create(visible, rows, None, length, length, device=segments.device)


def attend(query: Tensor, key: Tensor, value: Tensor, *, mask: Mask) -> Tensor:
    """Attention with grouped queries: [b, heads, L, head_size] from keys and values [b, kv_heads, L, head_size]."""
    if isinstance(mask, BlockMask):
        attended: Tensor = _compiled_flex_attention()(query, key, value, block_mask=mask, enable_gqa=True)
        return attended
    if mask is None:
        return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    if query.is_cuda:  # no fused CUDA kernel takes a mask and grouped queries together
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        return scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)


@cache
def _compiled_flex_attention() -> Callable[..., Any]:
    # Only the compiled kernel skips blocks and keeps the scores out of memory.
    return torch.compile(flex_attention, dynamic=False)


@cache
def _compiled_create_block_mask() -> Callable[..., BlockMask]:
    return torch.compile(create_block_mask, dynamic=False)
