"""Frozen states as features that a probe can be fitted on: what scales, shifts and repeats in them taken out.

States of trained models have a few directions with most of the variance ("massive activations", arXiv 2402.17762). Of
standardised features one may hold 85 %, while what tells the classes lies in some with a hundred-thousandth. A penalty
on weights then forbids just those, and no learning rate fits them all. So features are principal components, scaled by
variance^(-3/8): between -1/2, where all are equally loud (noise too: bad where documents are few), and 0, where one
drowns the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.probes.fits import threads_for

_EXPONENT = -0.375
_SMALLEST_VARIANCE = 1e-8
"""Of a standardised feature's, 1: below lies the rounding of float32 states."""


def conditioned(states: Tensor, train: NumPyArray) -> Tensor:
    """Scaled principal components of states: float32 [p, n, d], of mean variance 1 in the documents `train`.

    Nothing but those documents decides them. Directions in which they do not differ are 0. Costs p x (2 n d² + 10 d³)
    operations in float64.

    Args:
        states: float32 [p, n, d]: p sets of states of the same documents.
        train: int64: which documents are for training.
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
