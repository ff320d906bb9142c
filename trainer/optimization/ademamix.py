"""AdEMAMix (arXiv 2409.03137)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from colophon.trainer.config import AdEMAMixConfig
from colophon.trainer.parallel import own_part

_AT_ONCE = 2**26
"""Weights that are updated at once: their two temporary tensors take 0.5 GB."""


class AdEMAMix(torch.optim.Optimizer):
    """AdEMAMix without weight decay: AdamW's update with alpha x a slow average of the gradients added to the fast one.

    m1 = β1 m1 + (1 − β1) g;  m2 = β3(t) m2 + (1 − β3(t)) g;  v = β2 v + (1 − β2) g²
    p ← p − rate · (m1 / (1 − β1^t) + α(t) m2) / (sqrt(v / (1 − β2^t)) + ε)

    as in arXiv 2409.03137, algorithm 1, with its schedules of α and β3 over `warmup_steps`. Each operation is one for
    many parameters; compiled, all operations of a parameter are one pass over its tensors.
    """

    def __init__(self, params: Any, *, config: AdEMAMixConfig, warmup_steps: int, compiled: bool = False) -> None:
        super().__init__(params, {"lr": 0.0})
        self._config, self._warmup_steps, self._compiled = config, warmup_steps, compiled

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the current gradients."""
        for group in self.param_groups:
            for parameters in _in_parts([p for p in group["params"] if p.grad is not None]):
                self._update(parameters, rate=group["lr"])

    def _update(self, parameters: list[Tensor], *, rate: float) -> None:
        config, states = self._config, [self._state_of(parameter) for parameter in parameters]
        step = int(states[0]["step"].numpy())  # on the host, and the same for all
        alpha, beta3 = slow_average(step, config=config, warmup_steps=self._warmup_steps)
        fast, slow, squares = (
            [own_part(s[name]) for s in states] for name in ("exp_avg", "exp_avg_slow", "exp_avg_sq")
        )
        gradients = [own_part(p.grad) for p in parameters if p.grad is not None]
        if self._compiled:
            for tensors in zip(map(own_part, parameters), gradients, fast, slow, squares, strict=True):
                _compiled_update()(
                    *(tensor.detach() for tensor in tensors),  # the compiler fixes the sizes of parameters
                    decays=(config.beta1, beta3, config.beta2),
                    corrections=(1 - config.beta1**step, 1 - config.beta2**step),
                    rate=rate,
                    alpha=alpha,
                    eps=config.eps,
                )
            return
        torch._foreach_lerp_(fast, gradients, 1 - config.beta1)
        torch._foreach_lerp_(slow, gradients, 1 - beta3)
        torch._foreach_mul_(squares, config.beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - config.beta2)
        updates = torch._foreach_div(fast, 1 - config.beta1**step)
        torch._foreach_add_(updates, slow, alpha=alpha)
        spreads = torch._foreach_div(squares, 1 - config.beta2**step)
        torch._foreach_sqrt_(spreads)
        torch._foreach_add_(spreads, config.eps)
        torch._foreach_addcdiv_([own_part(p) for p in parameters], updates, spreads, -rate)

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """The state of a parameter, with one more step counted."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            for name in ("exp_avg", "exp_avg_slow", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter)
        state["step"] += 1
        return state


def _update_one(
    weights: Tensor,
    gradients: Tensor,
    fast: Tensor,
    slow: Tensor,
    squares: Tensor,
    *,
    decays: tuple[float, float, float],
    corrections: tuple[float, float],
    rate: float,
    alpha: float,
    eps: float,
) -> None:
    """The update of one parameter, in place. The same operations as those for many parameters, but for rounding;
    compiled, those would be compiled again for every number."""
    beta1, beta3, beta2 = decays
    fast.add_((gradients - fast) * (1 - beta1))
    slow.add_((gradients - slow) * (1 - beta3))
    squares.mul_(beta2).add_(gradients * gradients * (1 - beta2))
    updates = fast / corrections[0] + alpha * slow
    spreads = (squares / corrections[1]).sqrt() + eps
    weights.sub_(rate * updates / spreads)


@cache
def _compiled_update() -> Callable[..., None]:
    return torch.compile(_update_one, dynamic=True, fullgraph=True)  # one graph for matrices, one for norms


def slow_average(step: int, *, config: AdEMAMixConfig, warmup_steps: int) -> tuple[float, float]:
    """alpha and beta3 of update `step` (from 1): alpha grows linearly, the half-life of beta3 almost linearly."""
    done = min(step / warmup_steps, 1.0)
    if done == 1.0 or config.beta3 <= config.beta1 or not config.beta1:
        return config.alpha * done, config.beta3
    log1, log3 = math.log(config.beta1), math.log(config.beta3)
    return config.alpha * done, math.exp(log1 * log3 / ((1 - done) * log3 + done * log1))


def _in_parts(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """The parameters in parts of up to `_AT_ONCE` weights, or of one larger parameter."""
    part: list[Tensor] = []
    for parameter in parameters:
        if part and sum(p.numel() for p in part) + parameter.numel() > _AT_ONCE:
            yield part
            part = []
        part.append(parameter)
    if part:
        yield part
