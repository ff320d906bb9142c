"""Causal attention, within documents or across them.

A mask is built once per micro-batch and serves all layers. It has three equivalent forms: segment boundaries for flash
attention with variable lengths, a block mask for FlexAttention, and a dense boolean mask for
`scaled_dot_product_attention`. A token attends to itself and to the tokens before it in its own segment. Padding is a
segment of its own, so padding and text never attend to each other. No mask means plain causal attention over the row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.attention import activate_flash_attention_impl, current_flash_attention_impl
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention

from colophon.shards.common.errors import one_line

_FLASH_ATTENTION_3 = "flash_attn_interface"
_SHORTEST_BOUND = 512
_FEWEST_BOUNDS = 64

AttentionKind: TypeAlias = Literal["varlen", "flex", "sdpa"]


@dataclass(frozen=True)
class SegmentBounds:
    """Boundaries of the segments of a micro-batch, whose rows are joined."""

    cu_seqlens: Tensor
    """int32 [num_segments + 1], from 0 to b * L. Padded: further segments of no tokens, up to a power of 2 of bounds,
    at least 64."""
    max_length: int
    """An upper bound of the segments' lengths: 512 or the next power of 2, and at most the row's length. A kernel
    starts as many blocks for every segment as the longest may need; a graph is compiled for each bound. Padded: the
    row's length."""


Mask: TypeAlias = Tensor | BlockMask | SegmentBounds | None


def choose_attention(device: torch.device, dtype: torch.dtype, *, head_size: int) -> AttentionKind:
    """The fastest kind of attention that a device supports for a dtype and a head size."""
    if device.type != "cuda":
        return "sdpa"
    return "flex" if _without_varlen(device, dtype, head_size=head_size) else "varlen"


def why_not(kind: AttentionKind, device: torch.device, dtype: torch.dtype, *, head_size: int) -> str | None:
    """The reason why a device cannot train with a kind of attention; None where it can."""
    if kind == "sdpa":
        return None
    if device.type != "cuda":
        return "it runs on CUDA only"
    return _without_varlen(device, dtype, head_size=head_size) if kind == "varlen" else None


def _without_varlen(device: torch.device, dtype: torch.dtype, *, head_size: int) -> str | None:
    """The reason why torch's flash attention cannot be used; its own checks are in ATen's `mha_varlen_fwd`."""
    if dtype not in {torch.bfloat16, torch.float16}:
        return f"it needs bfloat16, not {str(dtype).removeprefix('torch.')}"
    if head_size % 8 or head_size > 256:
        return f"it needs a head size that is a multiple of 8 up to 256, not {head_size}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"it needs a GPU of compute capability 8.0 or more, not {torch.cuda.get_device_name(device)}"
    return None


def activate_flash_attention_3(device: torch.device) -> str | None:
    """Let torch's flash attention use FlashAttention 3, for all models of this process.

    Its library is `flash_attn_interface`; it runs on GPUs of compute capability 9, such as the H100 and H200.

    Returns:
        None if it is used; else the reason why FlashAttention 2, which torch has, is.
    """
    if torch.cuda.get_device_capability(device)[0] != 9:
        return f"{torch.cuda.get_device_name(device)} is not of compute capability 9"
    if find_spec(_FLASH_ATTENTION_3) is None:
        return f"{_FLASH_ATTENTION_3} is not installed"
    if current_flash_attention_impl() != "FA3":
        try:
            activate_flash_attention_impl("FA3")
        except (ImportError, OSError, RuntimeError) as error:  # built for a different torch or CUDA
            return one_line(error)
    return None


def document_mask(
    segments: Tensor, *, kind: AttentionKind, device: torch.device | None = None, padded: bool = False
) -> Mask:
    """The mask of rows with the segments `segments`, int32 [b, L], for use on `device` (None: that of `segments`);
    `padded` as of `segment_bounds`."""
    if kind == "varlen":
        return segment_bounds(segments, device=device, padded=padded)
    segments = segments if device is None else segments.to(device, non_blocking=True)
    return block_mask(segments, compiled=segments.is_cuda) if kind == "flex" else dense_mask(segments)


def dense_mask(segments: Tensor) -> Tensor:
    """bool [b, 1, L, L]: whether query i attends to key j. Memory: L² bytes per row.

    Segments [0, 0, 1] give the rows [1, 0, 0], [1, 1, 0], [0, 0, 1].
    """
    same = segments[:, :, None] == segments[:, None, :]
    return same.tril()[:, None]


def block_mask(segments: Tensor, *, compiled: bool) -> BlockMask:
    """The same mask for FlexAttention, in blocks of 128 x 128."""

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (segments[row, query] == segments[row, key])

    rows, length = segments.shape
    create: Callable[..., BlockMask] = _compiled_create_block_mask() if compiled else create_block_mask
    return create(visible, rows, None, length, length, device=segments.device)


def segment_bounds(segments: Tensor, *, device: torch.device | None = None, padded: bool = False) -> SegmentBounds:
    """The same mask for attention with variable lengths, on `device` (None: that of `segments`).

    Segments [0, 0, 1] of one row give the bounds [0, 2, 3]. Their number is a shape, and the longest a number: for
    `segments` on a device the host waits for all operations queued there, so they should be in host memory.

    `padded` bounds have few shapes, for a graph of fixed shapes: at most one for each power of 2. It costs the blocks
    that a kernel starts for empty segments, and for short ones in long rows, and which end at once.
    """
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    end = torch.tensor([segments.numel()], device=segments.device)
    bounds = torch.cat([starts.flatten().nonzero()[:, 0], end]).int()
    longest = int(bounds.diff().amax().cpu().numpy())
    if padded:  # bounds [0, 2, 3] -> [0, 2, 3, 3, ...]
        missing = max(_FEWEST_BOUNDS, 1 << (len(bounds) - 1).bit_length()) - len(bounds)
        bounds, longest = pad(bounds, (0, missing), value=segments.numel()), segments.shape[1]
    if device is not None and device.type == "cuda" and not bounds.is_cuda:
        bounds = bounds.pin_memory()  # a copy from other memory may wait for queued operations
    bounds = bounds.to(device, non_blocking=True)
    if not padded:
        torch._dynamo.mark_dynamic(bounds, 0)  # so that compiled layers accept any number of segments
    return SegmentBounds(
        bounds, max_length=min(max(_SHORTEST_BOUND, 1 << (longest - 1).bit_length()), segments.shape[1])
    )


def attend(query: Tensor, key: Tensor, value: Tensor, *, mask: Mask) -> Tensor:
    """Attention with grouped queries: [b, heads, L, head_size] from keys and values [b, kv_heads, L, head_size]."""
    if isinstance(mask, SegmentBounds):
        return _attend_varlen(query, key, value, mask)
    if isinstance(mask, BlockMask):
        compiled = query.is_cuda and not torch.compiler.is_compiling()  # a compiled layer compiles it too
        flex: Any = _compiled_flex_attention() if compiled else flex_attention
        attended: Tensor = flex(query, key, value, block_mask=mask, enable_gqa=True)
        return attended
    if mask is None:
        return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    if query.is_cuda:  # some fused CUDA kernels do not accept a mask together with grouped queries
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        return scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)


def _attend_varlen(query: Tensor, key: Tensor, value: Tensor, bounds: SegmentBounds) -> Tensor:
    rows, heads, length, head_size = query.shape
    q, k, v = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))  # [b * L, heads, head_size]
    attended = varlen_attn(
        q,
        k,
        v,
        bounds.cu_seqlens,
        bounds.cu_seqlens,
        bounds.max_length,
        bounds.max_length,
        window_size=(-1, 0),  # causal
        enable_gqa=True,
    )
    assert isinstance(attended, Tensor)  # a tuple only with auxiliary outputs
    return attended.view(rows, length, heads, head_size).transpose(1, 2)


@cache
def _compiled_flex_attention() -> Callable[..., Any]:
    # Only the compiled kernel skips blocks and does not store the scores.
    return torch.compile(flex_attention, dynamic=False)


@cache
def _compiled_create_block_mask() -> Callable[..., BlockMask]:
    return torch.compile(create_block_mask, dynamic=False)
