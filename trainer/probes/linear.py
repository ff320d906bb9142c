"""Linear probes: multinomial logistic regression, fitted to its optimum.

The loss is convex, so it has one minimum, and neither a learning rate nor early stopping matters: L-BFGS runs in
float64 over all training documents until the gradient vanishes. The only choice is the strength of the penalty, which
validation documents decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, nll_loss

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.probes.fits import Examples, Fit, Split, threads_for

STRENGTHS = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)
TOLERANCE = 1e-5
_SEARCH_TOLERANCE = 1e-3  # enough to compare strengths
_MAX_ITERATIONS, _SEARCH_ITERATIONS = 2000, 300
_ITERATIONS_PER_CHECK = 10
_MEMORY = 20
_LEAST_CURVATURE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Minimum:
    """The minimum of a loss."""

    weights: Tensor
    """float64 [d + 1, num_classes]; the last row is the bias."""
    gradient_norm: float
    """Euclidean norm of the gradient at the minimum."""
    iterations: int


def fit_linear(features: Tensor, labels: NumPyArray, split: Split, *, num_classes: int) -> list[Fit]:
    """Fit a linear probe on each of `p` sets of features of the same documents, and predict the test documents.

    Strengths go down from 10 to 1e-4 by factors of ten, each fit starting where the last one ended, until the
    validation loss rises. The strength with the lowest loss is fitted until the gradient's norm is below 1e-5. Costs
    about 100 to 500 x 4 n d num_classes operations per probe.

    Args:
        features: float32 [p, n, d] of similar size, see `conditioned`, on the device to fit on.
        labels: int64 [n], below `num_classes`; those of the test documents are not read.
        split: which documents are for training, validation and test.
        num_classes: number of the classifier's outputs.
    """
    with threads_for(4 * len(split.train) * features.shape[2] * num_classes):
        return [_fit(one[None], labels, split, num_classes=num_classes) for one in features]


def _fit(features: Tensor, labels: NumPyArray, split: Split, *, num_classes: int) -> Fit:
    train, validation = (Examples(features, labels, part) for part in (split.train, split.validation))
    known, seen = train.features[0].double(), validation.features[0].double()
    weights = torch.zeros(known.shape[1] + 1, num_classes, dtype=torch.float64, device=known.device)
    lowest, chosen, start, iterations = float("inf"), STRENGTHS[0], weights, 0
    for strength in STRENGTHS:
        found = minimise(
            known, train.labels, strength, weights, tolerance=_SEARCH_TOLERANCE, max_iterations=_SEARCH_ITERATIONS
        )
        weights, iterations = found.weights, iterations + found.iterations
        loss = float(nll_loss(log_softmax(_logits(weights, seen), dim=1), validation.labels))
        if loss >= lowest:
            break
        lowest, chosen, start = loss, strength, weights
    best = minimise(known, train.labels, chosen, start, tolerance=TOLERANCE, max_iterations=_MAX_ITERATIONS)
    test = features[0, torch.from_numpy(split.test).to(features.device)].double()
    return Fit(
        classes=_logits(best.weights, test).argmax(dim=1).cpu().numpy(),
        chosen=chosen,
        epochs=iterations + best.iterations,
        warning=None if best.gradient_norm <= TOLERANCE else "limit",
    )


def minimise(
    features: Tensor, labels: Tensor, strength: float, start: Tensor, *, tolerance: float, max_iterations: int
) -> Minimum:
    """The minimum of mean cross-entropy + strength / 2 x sum of squared weights; the bias is not penalised.

    L-BFGS (Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 7.5) with strong Wolfe line search, in
    weights scaled by the root of the loss's curvature along each at the start: the scale changes the path, not the
    minimum.

    Args:
        features: float64 [n, d].
        labels: int64 [n].
        strength: the penalty's, above 0.
        start: float64 [d + 1, num_classes].
        tolerance: the gradient's norm at which it stops.
        max_iterations: the limit at which it stops in any case.
    """
    scales = _curvature(start, features, strength).rsqrt()
    scaled = (start / scales).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [scaled],
        max_iter=_ITERATIONS_PER_CHECK,
        tolerance_grad=0,
        tolerance_change=0,
        history_size=_MEMORY,
        line_search_fn="strong_wolfe",
    )

    @torch.no_grad()
    def closure() -> float:
        loss, gradient = loss_and_gradient(scaled * scales, features, labels, strength)
        scaled.grad = gradient * scales
        return float(loss)

    for iterations in range(0, max_iterations + 1, _ITERATIONS_PER_CHECK):
        weights = scaled.detach() * scales
        norm = float(loss_and_gradient(weights, features, labels, strength)[1].norm())
        if norm <= tolerance or iterations >= max_iterations:
            break
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return Minimum(weights=weights, gradient_norm=norm, iterations=iterations)


def loss_and_gradient(weights: Tensor, features: Tensor, labels: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """The loss that `minimise` minimises, float64 [], and its gradient by the weights [d + 1, num_classes]."""
    log_probabilities = log_softmax(_logits(weights, features), dim=1)
    loss = nll_loss(log_probabilities, labels) + strength / 2 * weights[:-1].square().sum()
    residuals = log_probabilities.exp_()
    residuals[torch.arange(len(labels), device=labels.device), labels] -= 1
    residuals /= len(labels)
    gradient = torch.cat([features.T @ residuals + strength * weights[:-1], residuals.sum(dim=0, keepdim=True)])
    return loss, gradient


def _curvature(weights: Tensor, features: Tensor, strength: float) -> Tensor:
    """The Hessian's diagonal [d + 1, num_classes], above 0."""
    probabilities = torch.softmax(_logits(weights, features), dim=1)
    spread = probabilities * (1 - probabilities) / len(features)
    diagonal = torch.cat([features.square().T @ spread + strength, spread.sum(dim=0, keepdim=True)])
    return diagonal + _LEAST_CURVATURE


def _logits(weights: Tensor, features: Tensor) -> Tensor:
    return torch.addmm(weights[-1], features, weights[:-1])
