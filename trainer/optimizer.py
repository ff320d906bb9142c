"""AdamW with decoupled weight decay on matrices, and none on norms and meta tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import OptimizerConfig
from trainer.model import Decoder


class AdamW(torch.optim.AdamW):
    """Fused AdamW that leaves some rows of one matrix undecayed."""

    def __init__(self, groups: list[dict[str, Any]], *, undecayed: tuple[Tensor, Sequence[int]], **settings: Any):
        super().__init__(groups, fused=True, **settings)
        self._undecayed = undecayed

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update. AdamW takes rate x decay x weight off every row; the undecayed ones get it back."""
        parameter, rows = self._undecayed
        before = parameter[list(rows)].clone()
        super().step(closure)
        group = next(group for group in self.param_groups if any(p is parameter for p in group["params"]))
        parameter[list(rows)] += group["lr"] * group["weight_decay"] * before


def build_optimizer(model: Decoder, config: OptimizerConfig) -> AdamW:
    """The optimizer of a model; the learning rate is set before every step by `set_learning_rate`."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    norms = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": norms, "weight_decay": 0.0}],
        undecayed=(model.embed_tokens.weight, model.meta_token_ids),
        lr=0.0,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step, for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(model: nn.Module, *, max_norm: float | None) -> Tensor:
    """Scale all gradients down to `max_norm` together; returns their norm before that, a scalar on the device."""
    return nn.utils.clip_grad_norm_(model.parameters(), float("inf") if max_norm is None else max_norm)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name: `layers.0...weight.exp_avg` and so on."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}.{key}"] = value
    return tensors


def load_optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `optimizer_tensors`."""
    for name, parameter in model.named_parameters():
        keys = {key for key in tensors if key.rpartition(".")[0] == name}
        optimizer.state[parameter] = {key.rpartition(".")[2]: tensors[key].to(parameter.device) for key in keys}
