"""AdamW, AdEMAMix and Muon, with the same weight decay: of matrices, not of norms and meta tokens.

The decay is applied here, before the optimizer's own step, which has none: p ← p · (1 − rate · decay), or with
`independent_weight_decay` p ← p · (1 − rate / highest rate · decay).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from colophon.trainer.config import AdEMAMixConfig, MuonConfig, TrainConfig
from colophon.trainer.model import Decoder
from colophon.trainer.parallel import full_tensor, gathered_tensors, sharded_like
from colophon.trainer.tensor_checks import check_tensors


class AdEMAMix(torch.optim.Optimizer):
    """AdEMAMix without weight decay: AdamW's update with alpha x a slow average of the gradients added to the fast one.

    m1 = β1 m1 + (1 − β1) g;  m2 = β3(t) m2 + (1 − β3(t)) g;  v = β2 v + (1 − β2) g²
    p ← p − rate · (m1 / (1 − β1^t) + α(t) m2) / (sqrt(v / (1 − β2^t)) + ε)

    as in arXiv 2409.03137, algorithm 1, with its schedules of α and β3 over `warmup_steps`.
    """

    def __init__(self, params: Any, *, config: AdEMAMixConfig, warmup_steps: int) -> None:
        super().__init__(params, {"lr": 0.0})
        self._config, self._warmup_steps = config, warmup_steps

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the current gradients."""
        config = self._config
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    for name in ("exp_avg", "exp_avg_slow", "exp_avg_sq"):
                        state[name] = torch.zeros_like(parameter)
                state["step"] += 1
                step = int(state["step"].item())
                alpha, beta3 = slow_average(step, config=config, warmup_steps=self._warmup_steps)
                fast, slow, squares, grad = state["exp_avg"], state["exp_avg_slow"], state["exp_avg_sq"], parameter.grad
                fast.lerp_(grad, 1 - config.beta1)
                slow.lerp_(grad, 1 - beta3)
                squares.mul_(config.beta2).addcmul_(grad, grad, value=1 - config.beta2)
                update = fast / (1 - config.beta1**step) + alpha * slow
                spread = (squares / (1 - config.beta2**step)).sqrt_().add_(config.eps)
                parameter.addcdiv_(update, spread, value=-group["lr"])


def slow_average(step: int, *, config: AdEMAMixConfig, warmup_steps: int) -> tuple[float, float]:
    """alpha and beta3 of update `step` (from 1): alpha grows linearly, the half-life of beta3 almost linearly."""
    done = min(step / warmup_steps, 1.0)
    if done == 1.0 or config.beta3 <= config.beta1 or not config.beta1:
        return config.alpha * done, config.beta3
    log1, log3 = math.log(config.beta1), math.log(config.beta3)
    return config.alpha * done, math.exp(log1 * log3 / ((1 - done) * log3 + done * log1))


_PARTS: Mapping[type[torch.optim.Optimizer], Sequence[str]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.Muon: ("momentum_buffer",),
    AdEMAMix: ("step", "exp_avg", "exp_avg_slow", "exp_avg_sq"),
}
"""The tensors that each optimizer keeps for a parameter."""


class ModelOptimizer:
    """The optimizer of a decoder: one or two optimizers of torch, weight decay, and clipping."""

    def __init__(self, model: Decoder, config: TrainConfig) -> None:
        """Create the optimizer of a model that is already on its device and sharded."""
        self._model, self._config = model, config
        self._peak = config.learning_rate
        self._optimizers = _optimizers(model, config)
        self._decayed: list[Tensor] = [
            p for p in model.parameters() if p.ndim >= 2 and p is not model.embed_tokens.weight
        ]
        self._embedding_decay = sharded_like(_embedding_decay(model), model.embed_tokens.weight)

    def zero_grad(self) -> None:
        """Remove the gradients."""
        self._model.zero_grad(set_to_none=True)

    def clip(self) -> float:
        """Scale all gradients down to a joint norm of `max_grad_norm`; returns their norm before that."""
        limit = self._config.optimizer.max_grad_norm
        if limit is None:
            norm = nn.utils.get_total_norm([p.grad for p in self._model.parameters() if p.grad is not None])
        else:
            norm = nn.utils.clip_grad_norm_(self._model.parameters(), limit)
        return float(full_tensor(norm).item())

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update at the learning rate `rate`."""
        settings = self._config.optimizer
        decay = settings.weight_decay * (rate / self._peak if settings.independent_weight_decay else rate)
        if decay:
            torch._foreach_mul_(self._decayed, 1 - decay)
            self._model.embed_tokens.weight.mul_(1 - decay * self._embedding_decay)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def tensors(self, *, keep: bool = True) -> dict[str, Tensor]:
        """The complete state by parameter name and part (`layers.0...weight.exp_avg`), on the host.

        All processes must call this; those without `keep` get an empty dict, and need no memory for it.
        """
        return gathered_tensors(
            (
                (f"{name}.{key}", value)
                for name, parameter in self._model.named_parameters()
                for optimizer in self._optimizers
                for key, value in optimizer.state.get(parameter, {}).items()
            ),
            keep=keep,
        )

    def load_tensors(self, tensors: Mapping[str, Tensor], *, where: object = "the optimizer's state") -> None:
        """Restore the state that `tensors` returned; `where` is its file in errors.

        Raises:
            TrainerError: a part is missing or unknown, or has a different shape or type; or a number is not finite.
        """
        if tensors:  # else no batch had a label with loss weight
            check_tensors(tensors, self._shapes(), where=where)
        by_name: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, part = key.rpartition(".")
            by_name.setdefault(name, {})[part] = value
        for name, parameter in self._model.named_parameters():
            for optimizer in self._optimizers:
                if any(parameter is p for group in optimizer.param_groups for p in group["params"]):
                    optimizer.state[parameter] = {
                        part: _step_count(value, optimizer, parameter)
                        if part == "step"
                        else sharded_like(value, parameter)
                        for part, value in by_name.get(name, {}).items()
                    }

    def _shapes(self) -> dict[str, Sequence[int]]:
        """The shapes of all parts by parameter name and part."""
        return {
            f"{name}.{part}": () if part == "step" else parameter.shape
            for name, parameter in self._model.named_parameters()
            for optimizer in self._optimizers
            if any(parameter is p for group in optimizer.param_groups for p in group["params"])
            for part in _PARTS[type(optimizer)]
        }


def _step_count(value: Tensor, optimizer: torch.optim.Optimizer, parameter: Tensor) -> Tensor:
    """A step count on the device that reads it: the parameter's for torch's fused kernels, the host for AdEMAMix."""
    return value if isinstance(optimizer, AdEMAMix) else value.to(parameter.device)


def _optimizers(model: Decoder, config: TrainConfig) -> list[torch.optim.Optimizer]:
    settings, parameters = config.optimizer, list(model.parameters())
    betas, eps = (settings.beta1, settings.beta2), settings.eps
    if isinstance(settings, AdEMAMixConfig):
        warmup = config.num_steps if settings.warmup_steps is None else settings.warmup_steps
        return [AdEMAMix(parameters, config=settings, warmup_steps=warmup)]
    matrices: list[Tensor] = []
    if isinstance(settings, MuonConfig):
        matrices = [parameter for parameter in model.layers.parameters() if parameter.ndim == 2]
    rest = [parameter for parameter in parameters if not any(parameter is matrix for matrix in matrices)]
    adamw = torch.optim.AdamW(rest, lr=0.0, betas=betas, eps=eps, weight_decay=0.0, fused=True)
    if not isinstance(settings, MuonConfig):
        return [adamw]
    muon = torch.optim.Muon(
        matrices,
        lr=0.0,
        weight_decay=0.0,
        momentum=settings.momentum,
        ns_steps=settings.newton_schulz_steps,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, adamw]


def _embedding_decay(model: Decoder) -> Tensor:
    """float32 [vocabulary_size, 1]: 1 for rows that decay, 0 for meta tokens."""
    decay = torch.ones(model.embed_tokens.num_embeddings, 1)
    decay[model.meta_token_ids] = 0.0
    return decay
