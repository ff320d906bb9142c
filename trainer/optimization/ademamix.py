"""AdEMAMix (arXiv 2409.03137)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from colophon.trainer.config import AdEMAMixConfig
from colophon.trainer.parallel import own_part

_AVERAGES = ("exp_avg", "exp_avg_slow", "exp_avg_sq")


class AdEMAMix(torch.optim.Optimizer):
    """AdEMAMix without weight decay: AdamW's update with alpha x a slow average of the gradients added to the fast one.

    m1 = β1 m1 + (1 − β1) g;  m2 = β3(t) m2 + (1 − β3(t)) g;  v = β2 v + (1 − β2) g²
    p ← p − rate · (m1 / (1 − β1^t) + α(t) m2) / (sqrt(v / (1 − β2^t)) + ε)

    as in arXiv 2409.03137, algorithm 1, with its schedules of α and β3 over `warmup_steps`. Compiled, all operations of
    a parameter are one pass over its tensors; else they need two temporary tensors of its size.
    """

    def __init__(self, params: Any, *, config: AdEMAMixConfig, warmup_steps: int, compiled: bool = False) -> None:
        super().__init__(params, {"lr": 0.0})
        self._config, self._warmup_steps, self._compiled = config, warmup_steps, compiled

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the current gradients."""
        update = _compiled_update() if self._compiled else _update
        config = self._config
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self._state_of(parameter)
                step = int(state["step"].numpy())  # on the host
                alpha, beta3 = slow_average(step, config=config, warmup_steps=self._warmup_steps)
                tensors = (parameter, parameter.grad, *(state[name] for name in _AVERAGES))
                update(
                    *(own_part(tensor).detach() for tensor in tensors),  # the compiler fixes the sizes of parameters
                    decays=(config.beta1, beta3, config.beta2),
                    corrections=(1 - config.beta1**step, 1 - config.beta2**step),
                    rate=group["lr"],
                    alpha=alpha,
                    eps=config.eps,
                )

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """The state of a parameter, with one more step counted."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            for name in _AVERAGES:
                state[name] = torch.zeros_like(parameter)
        state["step"] += 1
        return state


def _update(
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
    """The update of one parameter, in place, with at most two temporary tensors.

    What changes from update to update is a factor: as an argument such as `alpha`, each value of it would be compiled.
    """
    beta1, beta3, beta2 = decays
    fast.lerp_(gradients, 1 - beta1)
    slow.add_((gradients - slow).mul_(1 - beta3))
    squares.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
    updates = (fast / corrections[0]).add_(slow * alpha)
    spreads = (squares / corrections[1]).sqrt_().add_(eps)
    weights.sub_(updates.mul_(rate).div_(spreads))


@cache
def _compiled_update() -> Callable[..., None]:
    return torch.compile(_update, dynamic=True, fullgraph=True)  # one graph for matrices, one for norms


def slow_average(step: int, *, config: AdEMAMixConfig, warmup_steps: int) -> tuple[float, float]:
    """alpha and beta3 of update `step` (from 1): alpha grows linearly, the half-life of beta3 almost linearly."""
    done = min(step / warmup_steps, 1.0)
    if done == 1.0 or config.beta3 <= config.beta1 or not config.beta1:
        return config.alpha * done, config.beta3
    log1, log3 = math.log(config.beta1), math.log(config.beta3)
    return config.alpha * done, math.exp(log1 * log3 / ((1 - done) * log3 + done * log1))
