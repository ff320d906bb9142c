from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from colophon.trainer.config import AdEMAMixConfig, ModelConfig
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.optimization.ademamix import slow_average
from colophon.trainer.optimization.optimizer import ModelOptimizer
from tests.trainer.runs import SPECIAL, TINY_MODEL, TOKENIZER, config

KINDS = ["adamw", "ademamix", "muon"]


def make_model(**settings: object) -> Decoder:
    model = Decoder(ModelConfig.model_validate({**TINY_MODEL, **settings}), tokenizer=TOKENIZER)
    model.initialise(seed=0)
    return model


def optimizer_of(model: Decoder, *, learning_rate: float = 1e-2, **settings: Any) -> ModelOptimizer:
    return ModelOptimizer(model, config(optimizer=settings, learning_rate=learning_rate))


def draw_gradients(model: Decoder, *, seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_norms_and_meta_tokens_do_not_decay_and_the_rest_does(tied: bool, kind: str, independent: bool) -> None:
    model = make_model(tie_embeddings=tied)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    settings = {"type": kind, "weight_decay": 0.5, "independent_weight_decay": independent}
    optimizer = optimizer_of(model, learning_rate=0.2, **settings)
    draw_gradients(model, seed=0, scale=0.0)
    optimizer.step(0.1)
    kept = 1 - (0.1 / 0.2 if independent else 0.1) * 0.5
    for name, parameter in model.named_parameters():
        expected = before[name] if parameter.ndim == 1 else before[name] * kept
        if name == "embed_tokens.weight":
            expected[list(SPECIAL.meta)] = before[name][list(SPECIAL.meta)]
        torch.testing.assert_close(parameter.detach(), expected)


def test_adamw_is_torchs() -> None:
    ours, theirs = make_model(), make_model()
    optimizer = optimizer_of(ours, weight_decay=0.0, beta1=0.8, beta2=0.9, eps=1e-6)
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.0)
    for seed in range(3):
        for model in (ours, theirs):
            draw_gradients(model, seed=seed)
        optimizer.step(1e-2)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_ademamix_without_its_slow_average_is_adamw() -> None:
    models = [make_model(), make_model()]
    settings = {"weight_decay": 0.1, "beta2": 0.95}
    optimizers = [
        optimizer_of(models[0], type="adamw", **settings),
        optimizer_of(models[1], type="ademamix", alpha=0.0, **settings),
    ]
    for seed in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            draw_gradients(model, seed=seed)
            optimizer.step(1e-2)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_ademamix_by_hand() -> None:
    """One weight, three steps, straight from the paper's algorithm, without warm-up of alpha and beta3."""
    model = make_model()
    settings = {"beta1": 0.9, "beta2": 0.99, "beta3": 0.98, "alpha": 2.0, "eps": 1e-8, "weight_decay": 0.0}
    optimizer = optimizer_of(model, type="ademamix", warmup_steps=1, **settings)
    weight = model.norm.weight
    expected, fast, slow, squares = weight[0].item(), 0.0, 0.0, 0.0
    for step, gradient in enumerate([0.5, -1.0, 2.0], 1):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step(0.1)
        fast, slow = 0.9 * fast + 0.1 * gradient, 0.98 * slow + 0.02 * gradient
        squares = 0.99 * squares + 0.01 * gradient**2
        update = (fast / (1 - 0.9**step) + 2.0 * slow) / ((squares / (1 - 0.99**step)) ** 0.5 + 1e-8)
        expected -= 0.1 * update
        assert weight[0].item() == pytest.approx(expected, rel=1e-5)


def test_the_slow_average_warms_up() -> None:
    settings = AdEMAMixConfig(type="ademamix", beta1=0.9, beta3=0.9999, alpha=8.0)
    course = [slow_average(step, config=settings, warmup_steps=1000) for step in range(1, 1201)]
    alphas, betas = zip(*course, strict=True)
    assert alphas[499] == pytest.approx(4.0)
    assert alphas[999:] == (8.0,) * 201
    assert betas[999:] == (0.9999,) * 201
    # The half-life grows linearly from beta1's to beta3's.
    half_lives = [math.log(0.5) / math.log(beta) for beta in (0.9, 0.9999, *betas[:1000])]
    first, last, *course_of = half_lives
    assert course_of == pytest.approx([first + (last - first) * step / 1000 for step in range(1, 1001)])


def test_muon_makes_updates_of_equal_singular_values() -> None:
    model = make_model()
    optimizer = optimizer_of(model, type="muon", weight_decay=0.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    draw_gradients(model, seed=0)
    optimizer.step(1e-2)
    for name, parameter in model.named_parameters():
        change = parameter.detach() - before[name]
        if parameter.ndim == 2 and name.startswith("layers."):
            values = torch.linalg.svdvals(change)
            # Five Newton-Schulz steps bring them near to each other, but for some that were almost 0.
            assert values.quantile(0.95) / values.quantile(0.05) < 2.5
            # The size of an update of AdamW, 0.2 x rate an entry (arXiv 2502.16982).
            assert change.square().mean().sqrt().item() == pytest.approx(0.2 * 1e-2, rel=0.2)
        elif parameter.ndim == 2:
            assert change.abs().median().item() == pytest.approx(1e-2, rel=0.05)  # AdamW's first step


def test_muon_is_torchs() -> None:
    """Batched products of bfloat16 numbers are summed in a different order."""
    ours, theirs = make_model(), make_model()
    optimizer = optimizer_of(ours, type="muon", weight_decay=0.0, momentum=0.9)
    matrices = {name: p for name, p in theirs.named_parameters() if p.ndim == 2 and name.startswith("layers.")}
    reference = torch.optim.Muon(
        matrices.values(), lr=1e-2, weight_decay=0.0, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    before = {name: p.detach().clone() for name, p in matrices.items()}
    for seed in range(3):
        for model in (ours, theirs):
            draw_gradients(model, seed=seed)
        optimizer.step(1e-2)
        reference.step()
    for name, parameter in ours.named_parameters():
        if name in matrices:
            expected = matrices[name].detach() - before[name]
            assert (parameter.detach() - before[name] - expected).norm() < 2e-2 * expected.norm(), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_state_gives_the_same_updates(kind: str) -> None:
    models = [make_model(), make_model()]
    optimizers = [optimizer_of(model, type=kind) for model in models]
    draw_gradients(models[0], seed=0)
    optimizers[0].step(1e-2)
    models[1].load_state_dict(models[0].state_dict())
    optimizers[1].load_tensors({name: tensor.clone() for name, tensor in optimizers[0].tensors().items()})
    for model, optimizer in zip(models, optimizers, strict=True):
        draw_gradients(model, seed=1)
        optimizer.step(1e-2)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("max_norm", "expected"), [(1.0, 1.0), (None, 5.0), (100.0, 5.0)])
def test_clipping(max_norm: float | None, expected: float) -> None:
    model = make_model()
    draw_gradients(model, seed=0)
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None))
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad *= 5 / norm
    assert optimizer_of(model, max_grad_norm=max_norm).clip().item() == pytest.approx(5.0, rel=1e-4)
    after = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None))
    assert after.item() == pytest.approx(expected, rel=1e-4)
