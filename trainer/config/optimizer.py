"""The optimizers' settings."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from colophon.trainer.config.base import Settings


class _Optimizer(Settings):
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the average of gradients; with Muon, of the weights that AdamW updates."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """Decay of the average of their squares; with Muon, of the weights that AdamW updates."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator of an update."""
    weight_decay: float = Field(0.1, ge=0)
    """Decay of matrices; norms and meta tokens do not decay."""
    independent_weight_decay: bool = False
    """False: a step subtracts rate x decay x weight. True: (rate / highest rate) x decay x weight, so that the decay
    does not depend on the highest rate (arXiv 2510.19093); useful values are then smaller by that rate."""
    max_grad_norm: float | None = Field(1.0, gt=0, allow_inf_nan=True)
    """Largest norm of all gradients together; above it they are scaled down. `inf`: no limit."""

    @field_validator("max_grad_norm")
    @classmethod
    def _none_for_infinity(cls, value: float | None) -> float | None:
        return None if value == math.inf else value

    @field_serializer("max_grad_norm", when_used="json")
    def _infinity_for_none(self, value: float | None) -> float | str:
        return "inf" if value is None else value  # as in a recipe; JSON has no number for infinity

    @model_validator(mode="after")
    def _check_independent_decay(self) -> _Optimizer:
        if self.independent_weight_decay and "weight_decay" not in self.model_fields_set:
            raise ValueError(
                "independent_weight_decay subtracts weight_decay x weight at every step at the highest rate: set "
                f"weight_decay; the rate times the usual {self.weight_decay} is a start, 3e-5 for a rate of 3e-4"
            )
        return self


class AdamWConfig(_Optimizer):
    """AdamW (arXiv 1711.05101).

    Example:

        [train.tiny]
        optimizer = { type = "adamw", weight_decay = 0.05 }
    """

    type: Literal["adamw"] = "adamw"


class AdEMAMixConfig(_Optimizer):
    """AdEMAMix (arXiv 2409.03137): AdamW with a second, slow average of the gradients.

    Example:

        [train.tiny]
        optimizer = { type = "ademamix", beta3 = 0.9999 }
    """

    type: Literal["ademamix"]
    beta2: float = Field(0.999, ge=0, lt=1)
    beta3: float = Field(0.999, ge=0, lt=1)
    """Decay of the slow average; reached over the warm-up."""
    alpha: float = Field(8.0, ge=0)
    """Weight of the slow average; reached over the warm-up."""
    warmup_steps: int | None = Field(None, ge=1)
    """Warm-up steps of beta3 and alpha. None: all steps of the run."""


class MuonConfig(_Optimizer):
    """Muon for the layers' matrices, with AdamW's update size (arXiv 2502.16982); AdamW for the embedding, the output
    layer and norms. Both use the same learning rate.

    Example:

        [train.tiny]
        optimizer = "muon"
    """

    type: Literal["muon"]
    momentum: float = Field(0.95, ge=0, lt=1)
    """Decay of the average of gradients."""
    newton_schulz_steps: int = Field(5, ge=1, le=20)
    """Iterations that make an update orthogonal."""


OptimizerConfig = Annotated[AdamWConfig | AdEMAMixConfig | MuonConfig, Field(discriminator="type")]
