"""AdamW, AdEMAMix and Muon, with the same weight decay: of matrices, not of norms and meta tokens.

The decay is applied here, before the optimizer's own step, which has none: p ← p · (1 − rate · decay), or with
`independent_weight_decay` p ← p · (1 − rate / highest rate · decay).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from colophon.trainer.checkpoints.tensor_checks import check_tensors
from colophon.trainer.config import AdEMAMixConfig, MuonConfig, TrainConfig
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.optimization.ademamix import AdEMAMix
from colophon.trainer.optimization.muon import Muon
from colophon.trainer.parallel import full_tensor, gathered_tensors, own_part, shard_of, sharded_like

_PARTS: Mapping[type[torch.optim.Optimizer], Sequence[str]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    Muon: ("momentum_buffer",),
    AdEMAMix: ("step", "exp_avg", "exp_avg_slow", "exp_avg_sq"),
}
"""The tensors that each optimizer keeps for a parameter."""


class ModelOptimizer:
    """The optimizer of a decoder: one or two optimizers of torch, weight decay, and clipping."""

    def __init__(self, model: Decoder, config: TrainConfig) -> None:
        """Create the optimizer of a model that is already on its device and sharded."""
        self._model, self._config = model, config
        self._peak = config.learning_rate
        on_cuda = model.embed_tokens.weight.device.type == "cuda"
        self._optimizers = _optimizers(model, config, compiled=model.compiled is not None and on_cuda)
        self._decayed: list[Tensor] = [
            p for p in model.parameters() if p.ndim >= 2 and p is not model.embed_tokens.weight
        ]
        self._embedding_decay = sharded_like(_embedding_decay(model), model.embed_tokens.weight)

    def zero_grad(self) -> None:
        """Remove the gradients. With CUDA graphs they are set to 0 in memory of their own: the next recorded backward
        pass overwrites those that it returned before."""
        if self._model.compiled != "cuda_graphs":
            self._model.zero_grad(set_to_none=True)
            return
        for parameter in self._model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._model.zero_grad(set_to_none=False)

    def num_state_bytes(self) -> int:
        """Bytes that the state of all parameters takes, or will take after the first update, on this process."""
        num_bytes = 0
        for optimizer in self._optimizers:
            num_tensors = sum(part != "step" for part in _PARTS[type(optimizer)])
            for group in optimizer.param_groups:
                num_bytes += num_tensors * sum(own_part(p).nbytes for p in group["params"])
        return num_bytes

    def clip(self) -> Tensor:
        """Scale all gradients down to a joint norm of `max_grad_norm`; returns their norm before that, a scalar on the
        device."""
        limit = self._config.optimizer.max_grad_norm
        if limit is None:
            norm = nn.utils.get_total_norm([p.grad for p in self._model.parameters() if p.grad is not None])
        else:
            norm = nn.utils.clip_grad_norm_(self._model.parameters(), limit)
        return full_tensor(norm)

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
            check_tensors(tensors, self._shapes(), where=where, part=self._own_part)
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

    def _own_part(self, key: str, value: Tensor) -> Tensor:
        """The part of a complete tensor of the state that this process has."""
        name, _, part = key.rpartition(".")
        return value if part == "step" else shard_of(value, self._model.get_parameter(name))

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


def _optimizers(model: Decoder, config: TrainConfig, *, compiled: bool) -> list[torch.optim.Optimizer]:
    settings, parameters = config.optimizer, list(model.parameters())
    betas, eps = (settings.beta1, settings.beta2), settings.eps
    if isinstance(settings, AdEMAMixConfig):
        warmup = config.num_steps if settings.warmup_steps is None else settings.warmup_steps
        return [AdEMAMix(parameters, config=settings, warmup_steps=warmup, compiled=compiled)]
    matrices: list[Tensor] = []
    if isinstance(settings, MuonConfig):
        matrices = [parameter for parameter in model.layers.parameters() if parameter.ndim == 2]
    rest = [parameter for parameter in parameters if not any(parameter is matrix for matrix in matrices)]
    adamw = torch.optim.AdamW(rest, lr=0.0, betas=betas, eps=eps, weight_decay=0.0, fused=True)
    if not isinstance(settings, MuonConfig):
        return [adamw]
    steps = settings.newton_schulz_steps
    return [Muon(matrices, momentum=settings.momentum, newton_schulz_steps=steps, compiled=compiled), adamw]


def _embedding_decay(model: Decoder) -> Tensor:
    """float32 [vocabulary_size, 1]: 1 for rows that decay, 0 for meta tokens."""
    decay = torch.ones(model.embed_tokens.num_embeddings, 1)
    decay[model.meta_token_ids] = 0.0
    return decay
