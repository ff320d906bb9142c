from __future__ import annotations

import pytest
import torch

from tests.trainer.runs import SPECIAL, TINY_MODEL, TOKENIZER
from trainer.config import ModelConfig, OptimizerConfig
from trainer.model import Decoder
from trainer.optimizer import (
    build_optimizer,
    clip_gradients,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)


def make_model(**settings: object) -> Decoder:
    model = Decoder(ModelConfig.model_validate({**TINY_MODEL, **settings}), tokenizer=TOKENIZER)
    model.initialise(seed=0)
    return model


def draw_gradients(model: Decoder, *, seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("tied", [True, False])
def test_norms_and_meta_tokens_do_not_decay_and_the_rest_does(tied: bool) -> None:
    model = make_model(tie_embeddings=tied)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.5))
    set_learning_rate(optimizer, 0.1)
    draw_gradients(model, seed=0, scale=0.0)
    optimizer.step()
    for name, parameter in model.named_parameters():
        expected = before[name] if parameter.ndim == 1 else before[name] * (1 - 0.1 * 0.5)
        if name == "embed_tokens.weight":
            expected[list(SPECIAL.meta)] = before[name][list(SPECIAL.meta)]
        torch.testing.assert_close(parameter.detach(), expected)


def test_without_decay_it_is_torchs_adamw() -> None:
    ours, theirs = make_model(), make_model()
    optimizer = build_optimizer(ours, OptimizerConfig(weight_decay=0.0, beta1=0.8, beta2=0.9, eps=1e-6))
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.0)
    for seed in range(3):
        set_learning_rate(optimizer, 1e-2)
        for model, stepping in ((ours, optimizer), (theirs, reference)):
            draw_gradients(model, seed=seed)
            stepping.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_state_put_back_goes_on_as_before() -> None:
    models = [make_model(), make_model()]
    optimizers = [build_optimizer(model, OptimizerConfig()) for model in models]
    for optimizer in optimizers:
        set_learning_rate(optimizer, 1e-2)
    draw_gradients(models[0], seed=0)
    optimizers[0].step()
    models[1].load_state_dict(models[0].state_dict())
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(models[0], optimizers[0]).items()}
    load_optimizer_tensors(models[1], optimizers[1], saved)
    for model, optimizer in zip(models, optimizers, strict=True):
        draw_gradients(model, seed=1)
        optimizer.step()
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
    assert clip_gradients(model, max_norm=max_norm).item() == pytest.approx(5.0, rel=1e-4)
    after = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None))
    assert after.item() == pytest.approx(expected, rel=1e-4)
