"""All layers compiled as one graph: fixed shapes, the same losses and gradients, the memory of gradients."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from colophon.trainer.config import CompileScope, ModelConfig
from colophon.trainer.model.attention import AttentionKind, SegmentBounds, attend, document_mask
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.optimization.optimizer import ModelOptimizer
from tests.trainer.compiling import compile_with
from tests.trainer.runs import TINY_MODEL, TOKENIZER, config

# Warnings of torch's compiler itself.
pytestmark = [
    pytest.mark.usefixtures("fresh_compiler"),
    pytest.mark.filterwarnings(
        "ignore:.*torch.jit.script_method:DeprecationWarning", "ignore:The .grad attribute", "ignore:.*lru_cache"
    ),
]

ROWS, LENGTH = 2, 128
DENSITIES = (0.01, 0.05, 0.4, 0.0, 0.2)
IDS = torch.randint(0, 50, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
POSITIONS = torch.arange(LENGTH, dtype=torch.int32).expand(ROWS, LENGTH)


def segments_with(density: float) -> Tensor:
    """int32 [ROWS, LENGTH]: a segment begins at a token with probability `density`."""
    begins = torch.rand(ROWS, LENGTH, generator=torch.Generator().manual_seed(0)) < density
    return begins.int().cumsum(1).int()


def bounds_of(density: float) -> SegmentBounds:
    mask = document_mask(segments_with(density), kind="varlen", padded=True)
    assert isinstance(mask, SegmentBounds)
    return mask


def test_padded_bounds_have_few_shapes_and_empty_segments_at_the_end() -> None:
    for density in DENSITIES:
        exact = document_mask(segments_with(density), kind="varlen")
        assert isinstance(exact, SegmentBounds)
        padded, number = bounds_of(density), len(exact.cu_seqlens)
        assert torch.equal(padded.cu_seqlens[:number], exact.cu_seqlens)
        assert (padded.cu_seqlens[number:] == ROWS * LENGTH).all()
        assert padded.max_length == LENGTH
    assert {len(bounds_of(density).cu_seqlens) for density in DENSITIES} == {64, 128}


def test_empty_segments_change_neither_output_nor_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(ROWS, heads, LENGTH, 16, generator=generator) for heads in (4, 2, 2)]
    upstream, segments = torch.randn(ROWS, 4, LENGTH, 16, generator=generator), segments_with(0.05)
    found = []
    for padded in (False, True):
        inputs = [each.clone().requires_grad_() for each in states]
        out = attend(*inputs, mask=document_mask(segments, kind="varlen", padded=padded))
        found.append([out, *torch.autograd.grad(out, inputs, upstream)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def losses_and_gradients(
    compiled: CompileScope | None, *, kind: AttentionKind = "varlen", **settings: Any
) -> list[Tensor]:
    """The losses and gradients of micro-batches with more and fewer segments."""
    model = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER, compiled=compiled, **settings)
    model.initialise(seed=0)
    found = []
    for density in DENSITIES:
        mask = document_mask(segments_with(density), kind=kind, padded=model.is_one_graph)
        losses = model(IDS, POSITIONS, mask, IDS, torch.ones(ROWS, LENGTH), dtype=torch.float32)
        losses.weighted.backward()
        found += [losses.losses, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
        model.zero_grad()
    return found


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_model_is_one_graph_for_each_shape_of_bounds(checkpointing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = losses_and_gradients(None, kind="sdpa", activation_checkpointing=checkpointing)
    counter = CompileCounter()
    with monkeypatch.context() as patched:
        patched.setattr(torch, "compile", compile_with(counter))
        patched.setattr("colophon.trainer.model.loss._compiled_losses_and_errors", losses_and_errors)
        found = losses_and_gradients("model", activation_checkpointing=checkpointing)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert counter.frame_count == 2  # bounds of 64 and of 128


def losses_and_errors() -> Callable[..., Any]:
    """The operations on logits, not compiled."""
    from colophon.trainer.model.loss import _losses_and_errors

    return _losses_and_errors


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["model", "cuda_graphs"])
def test_a_model_compiled_by_torchs_own_backend_has_the_losses_of_one_that_is_not(scope: CompileScope) -> None:
    expected = losses_and_gradients(None, kind="sdpa")
    for one, other in zip(losses_and_gradients(scope), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_gradients_of_cuda_graphs_keep_their_memory() -> None:
    """A recorded backward pass returns its gradients in the same memory each time; they are added to other memory."""
    model = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER)
    model.initialise(seed=0)
    optimizer = ModelOptimizer(model, config())
    model.compiled = "cuda_graphs"
    optimizer.zero_grad()
    places = [p.grad.data_ptr() for p in model.parameters() if p.grad is not None]
    assert len(places) == len(list(model.parameters()))
    model.hidden_states(IDS, POSITIONS, None).sum().backward()
    assert any(p.grad.any() for p in model.parameters() if p.grad is not None)
    optimizer.zero_grad()
    assert [p.grad.data_ptr() for p in model.parameters() if p.grad is not None] == places
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_a_model_that_is_not_compiled_is_freed_at_once() -> None:
    model = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER)
    freed = weakref.ref(model)
    del model
    assert freed() is None
