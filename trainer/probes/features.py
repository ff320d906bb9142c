"""Features for probes: frozen states without differences of scale, offset and correlation.

States of trained models have a few directions with most of the variance ("massive activations", arXiv 2402.17762). One
of the standardised features' directions may have 85 % of the variance, while those that separate the classes have a
hundred-thousandth. A penalty on weights then suppresses exactly these, and no learning rate fits all directions. So
features are principal components, scaled by variance^(-3/8). An exponent of -1/2 would give all directions the same
variance, noise included, which is bad with few documents; with 0 one direction would dominate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.probes.fits import threads_for

_EXPONENT = -0.375
_SMALLEST_VARIANCE = 1e-8
"""As a share of a standardised feature's variance, 1: smaller values are rounding errors of float32 states."""


def conditioned(states: Tensor, train: NumPyArray) -> Tensor:
    """Scaled principal components of states: float32 [p, n, d], with mean variance 1 in the documents `train`.

    They are computed from those documents alone. Directions in which these do not differ are 0. Costs p x (2 n d² +
    10 d³) operations in float64.

    Args:
        states: float32 [p, n, d]: p sets of states of the same documents.
        train: int64: numbers of the training documents.
    """
    index = torch.from_numpy(train).to(states.device)
    features = torch.empty_like(states)
    with threads_for(0):  # an eigendecomposition is many small steps
        for one, result in zip(states, features, strict=True):
            result.copy_(_conditioned(one.double(), index))
    return features


def _conditioned(states: Tensor, train: Tensor) -> Tensor:
    known = states[train]
    center, spread = known.mean(dim=0), known.std(dim=0)
    standard = (states - center) / torch.where(spread > 0, spread, 1.0)
    known = standard[train]
    variances, directions = torch.linalg.eigh(known.T @ known / len(known))
    scales = torch.where(variances > _SMALLEST_VARIANCE, variances, torch.inf) ** _EXPONENT
    size = (variances.clamp(min=0) * scales.square()).mean().sqrt()
    features: Tensor = standard @ (directions * (scales / torch.where(size > 0, size, 1.0)))
    return features
