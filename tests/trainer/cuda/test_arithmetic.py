"""Attention, loss, model and optimizers on a GPU beside the same arithmetic on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from colophon.trainer.config import CompileScope, ModelConfig
from colophon.trainer.model.attention import AttentionKind, attend, document_mask, why_not
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.model.loss import chunked_cross_entropy
from colophon.trainer.optimization.optimizer import ModelOptimizer
from tests.trainer.runs import TOKENIZER, config

pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("ignore")]

ROWS, LENGTH = 2, 512
MODEL = {"num_layers": 2, "hidden_size": 256, "ffn_size": 512, "num_heads": 4, "num_kv_heads": 2}


def some_segments(*, seed: int = 0) -> Tensor:
    begins = torch.rand(ROWS, LENGTH, generator=torch.Generator().manual_seed(seed)) < 0.02
    return begins.int().cumsum(1).int()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("kind", "dtype"), [("varlen", "bfloat16"), ("flex", "bfloat16"), ("flex", "float32")])
def test_masked_attention_and_its_gradients_are_those_of_a_dense_mask(
    kind: AttentionKind, dtype: str, kv_heads: int, device: torch.device
) -> None:
    number_type = getattr(torch, dtype)
    if reason := why_not(kind, device, number_type, head_size=64):
        pytest.skip(reason)
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(ROWS, heads, LENGTH, 64, generator=generator) for heads in (4, kv_heads, kv_heads)]
    upstream, segments = torch.randn(ROWS, 4, LENGTH, 64, generator=generator), some_segments()
    exact = [each.double().requires_grad_() for each in states]
    expected = attend(*exact, mask=document_mask(segments, kind="sdpa"))
    moved = [each.to(device, number_type).requires_grad_() for each in states]
    found = attend(*moved, mask=document_mask(segments, kind=kind, device=device))
    tolerance = 2e-2 if dtype == "bfloat16" else 1e-3  # TF32 has ten bits
    assert relative(found, expected) < tolerance
    gradients = torch.autograd.grad(found, moved, upstream.to(device, number_type))
    for one, other in zip(gradients, torch.autograd.grad(expected, exact, upstream.double()), strict=True):
        assert relative(one, other) < tolerance


@pytest.mark.parametrize("compiled", [False, True])
def test_the_chunked_loss_and_its_gradients_are_those_of_the_whole(compiled: bool, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 128, generator=generator) for n in (300, 1000))
    labels, weights = torch.randint(0, 1000, (300,), generator=generator), torch.rand(300, generator=generator)
    exact = [each.double().requires_grad_() for each in (hidden, weight)]
    logits = exact[0] @ exact[1].T
    expected = (torch.nn.functional.cross_entropy(logits, labels, reduction="none") * weights).sum()
    moved = [each.to(device).requires_grad_() for each in (hidden, weight)]
    found = chunked_cross_entropy(
        *moved, labels.to(device), weights.to(device), chunk_tokens=128, compiled=compiled
    ).weighted
    assert relative(found, expected) < 1e-4
    for one, other in zip(torch.autograd.grad(found, moved), torch.autograd.grad(expected, exact), strict=True):
        assert relative(one, other) < 2e-3


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("scope", ["layers", "model", "cuda_graphs"])
def test_a_compiled_model_has_the_gradients_of_one_that_is_not(
    scope: CompileScope, checkpointing: bool, device: torch.device
) -> None:
    torch._dynamo.reset()
    found = {}
    for compiled in (None, scope):
        model = Decoder(
            ModelConfig.model_validate(MODEL),
            tokenizer=TOKENIZER,
            activation_checkpointing=checkpointing,
            compiled=compiled,
        )
        model.initialise(seed=0)
        found[compiled] = gradients_of(model.to(device), dtype=torch.bfloat16)
    for name, gradient in found[None].items():
        assert relative(found[scope][name], gradient) < 5e-2, name
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", ["adamw", "ademamix", "muon"])
def test_an_update_is_that_of_the_cpu(kind: str, device: torch.device) -> None:
    found = []
    for place in (torch.device("cpu"), device):
        model = Decoder(ModelConfig.model_validate(MODEL), tokenizer=TOKENIZER)
        model.initialise(seed=0)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.to(place)
        optimizer = ModelOptimizer(model, config(optimizer={"type": kind, "weight_decay": 0.0}, learning_rate=1e-2))
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(place)
            optimizer.step(1e-2)
        found.append({name: p.detach().cpu() - before[name] for name, p in model.named_parameters()})
    for name, change in found[0].items():
        assert relative(found[1][name], change) < (5e-2 if kind == "muon" else 1e-3), name


def gradients_of(model: Decoder, *, dtype: torch.dtype) -> dict[str, Tensor]:
    device = model.embed_tokens.weight.device
    kind: AttentionKind = "varlen" if device.type == "cuda" else "sdpa"
    ids = torch.randint(0, 50, (ROWS, LENGTH), generator=torch.Generator().manual_seed(2)).to(device)
    positions = torch.arange(LENGTH, dtype=torch.int32, device=device).expand(ROWS, LENGTH)
    mask = document_mask(some_segments(), kind=kind, device=device, padded=model.is_one_graph)
    model(ids, positions, mask, ids, torch.ones(ROWS, LENGTH, device=device), dtype=dtype).weighted.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def relative(found: Any, expected: Any) -> float:
    """The norm of the difference, relative to that of what is expected."""
    found, expected = (each.detach().double().cpu() for each in (found, expected))
    return float((found - expected).norm() / expected.norm())
