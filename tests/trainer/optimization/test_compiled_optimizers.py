"""Compiled updates of Muon and AdEMAMix, by torch's compiler for CPUs, beside those that are not compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from colophon.trainer.config import AdEMAMixConfig
from colophon.trainer.optimization.ademamix import AdEMAMix
from colophon.trainer.optimization.muon import Muon

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")

SHAPES = [(6, 4), (3, 8), (6, 4), (16,)]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def weights_after(make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer], *, updates: int) -> Any:
    """The weights after updates with random gradients at rates that change."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    optimizer = make(parameters)
    for update in range(updates):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (update + 1)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def test_ademamix_compiles_a_graph_for_matrices_and_one_for_norms_and_has_the_same_updates() -> None:
    settings = AdEMAMixConfig(type="ademamix")

    def make(parameters: list[torch.nn.Parameter], *, compiled: bool) -> AdEMAMix:
        return AdEMAMix(parameters, config=settings, warmup_steps=5, compiled=compiled)

    expected = weights_after(lambda parameters: make(parameters, compiled=False), updates=4)
    found = weights_after(lambda parameters: make(parameters, compiled=True), updates=4)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert counters["stats"]["unique_graphs"] == 2


def test_muon_compiles_one_graph_for_each_shape_and_has_the_same_updates() -> None:
    def make(parameters: list[torch.nn.Parameter], *, compiled: bool) -> Muon:
        matrices = [parameter for parameter in parameters if parameter.ndim == 2]
        return Muon(matrices, momentum=0.9, newton_schulz_steps=2, compiled=compiled)

    expected = weights_after(lambda parameters: make(parameters, compiled=False), updates=3)
    found = weights_after(lambda parameters: make(parameters, compiled=True), updates=3)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.05)  # bfloat16, updates of up to 0.2 x the rate each
    assert counters["stats"]["unique_graphs"] == 2
