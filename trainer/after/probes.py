"""Classifiers on frozen states, fitted many at a time, and how well they do.

A probe is a softmax classifier on standardised features: linear, or with two hidden layers between (the "3-layer MLP"
of arXiv 2511.21613). Probes of all layers are fitted side by side, as one batch of matrix products; each stops by its
own validation loss, so what one gives does not depend on the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from trainer.after.intervals import Estimate

NumPyArray = np.ndarray[Any, Any]

HIDDEN_SIZE = 256
_BATCH_SIZE = 64
_MAX_EPOCHS = 200
_PATIENCE = 15
_LEARNING_RATE, _MLP_LEARNING_RATE = 3e-3, 5e-4  # a wide MLP overfits within two epochs at the linear probe's rate
_WEIGHT_DECAY = 1e-2
_OPERATIONS_A_THREAD = 500_000_000
_NUM_RESAMPLES = 1000
_TAILS = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which documents serve what: int64 each, disjoint."""

    train: NumPyArray
    validation: NumPyArray
    test: NumPyArray

    def named(self) -> dict[str, NumPyArray]:
        """By name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Of `p` probes."""

    classes: NumPyArray
    """int64 [p, num_test]: what each says of the test documents."""
    epochs: NumPyArray
    """int64 [p]: after which its validation loss was lowest."""


def fit_probes(
    features: Tensor, labels: NumPyArray, parts: Parts, *, num_classes: int, hidden_sizes: Sequence[int], seed: int
) -> Predictions:
    """Fit a probe on each of `p` sets of features of the same documents, and let it predict.

    AdamW in batches of 64, until the validation loss has not fallen for 15 epochs, at most 200; the weights of the
    lowest count. Costs some 10 x epochs x documents x weights operations a probe.

    Args:
        features: float32 [p, n, d], on the device to fit on.
        labels: int64 [n], below `num_classes`; those of the test documents are not looked at.
        parts: of the documents.
        num_classes: the classifier's outputs.
        hidden_sizes: of the layers between; none: a linear probe.
        seed: of the first weights, which all probes share, and of the order of documents.
    """
    sizes = [features.shape[2], *hidden_sizes, num_classes]
    weights = sum(fan_in * fan_out for fan_in, fan_out in pairwise(sizes))
    with _threads(6 * len(features) * _BATCH_SIZE * weights):
        return _fit(features, labels, parts, sizes=sizes, seed=seed)


def _fit(features: Tensor, labels: NumPyArray, parts: Parts, *, sizes: Sequence[int], seed: int) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    train, validation = _Part(features, labels, parts.train), _Part(features, labels, parts.validation)
    center, spread = _standardisation(train.features)
    net = _Probes(sizes, count=len(features), generator=generator).to(features.device)
    rate = _MLP_LEARNING_RATE if len(sizes) > 2 else _LEARNING_RATE
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=_WEIGHT_DECAY)
    best = _Best(net)
    for epoch in range(1, _MAX_EPOCHS + 1):
        order = torch.randperm(len(parts.train), generator=generator).to(features.device)
        for batch in torch.split(order, _BATCH_SIZE):
            logits = net((train.features[:, batch] - center) / spread)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(_losses(logits, train.labels[batch]).sum())  # each probe has its own gradient
            optimizer.step()
        with torch.no_grad():
            logits = net((validation.features - center) / spread)
            if not best.update(net, _losses(logits, validation.labels), epoch=epoch):
                break
    test = torch.from_numpy(parts.test).to(features.device)
    with torch.no_grad():
        best.restore(net)
        predicted = net((features[:, test] - center) / spread).argmax(dim=-1)
    return Predictions(classes=predicted.cpu().numpy(), epochs=best.epochs.cpu().numpy())


@contextmanager
def _threads(operations: int) -> Iterator[None]:
    """As many threads of the CPU as a step of so many operations is worth: with more of them they wait for each other
    longer than they work, 30 times longer where other processes use the cores too."""
    available = torch.get_num_threads()
    torch.set_num_threads(max(1, min(available, operations // _OPERATIONS_A_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(available)


class _Part:
    """Features [p, m, d] and labels [m] of some documents."""

    def __init__(self, features: Tensor, labels: NumPyArray, documents: NumPyArray) -> None:
        self.features = features[:, torch.from_numpy(documents).to(features.device)]
        self.labels = torch.from_numpy(labels[documents]).to(features.device)


class _Probes(nn.Module):
    """`count` classifiers as batched matrix products, all with the same first weights."""

    def __init__(self, sizes: Sequence[int], *, count: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            weight = (2 * torch.rand((fan_in, fan_out), generator=generator) - 1) / math.sqrt(fan_in)
            self.weights.append(nn.Parameter(weight.repeat(count, 1, 1)))
            self.biases.append(nn.Parameter(torch.zeros(count, 1, fan_out)))

    def forward(self, states: Tensor) -> Tensor:
        """[p, b, d] to logits [p, b, num_classes]."""
        layers = list(zip(self.weights, self.biases, strict=True))
        for weight, bias in layers[:-1]:
            states = relu(torch.baddbmm(bias, states, weight))
        weight, bias = layers[-1]
        return torch.baddbmm(bias, states, weight)


class _Best:
    """Each probe's weights at its lowest validation loss, until it has waited too long for a lower one."""

    def __init__(self, net: _Probes) -> None:
        self._weights = [parameter.detach().clone() for parameter in net.parameters()]
        count, device = len(net.biases[0]), net.biases[0].device
        self._losses = torch.full((count,), math.inf, device=device)
        self.epochs = torch.zeros(count, dtype=torch.int64, device=device)

    def update(self, net: _Probes, losses: Tensor, *, epoch: int) -> bool:
        """Whether any probe still waits for a lower loss than its lowest."""
        waiting = epoch - self.epochs <= _PATIENCE
        better = waiting & (losses < self._losses)
        self._losses = torch.where(better, losses, self._losses)
        self.epochs = torch.where(better, epoch, self.epochs)
        for kept, parameter in zip(self._weights, net.parameters(), strict=True):
            kept[better] = parameter.detach()[better]
        return bool((epoch - self.epochs < _PATIENCE).any())

    def restore(self, net: _Probes) -> None:
        for kept, parameter in zip(self._weights, net.parameters(), strict=True):
            parameter.copy_(kept)


def _standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each feature, [p, 1, d]; a constant one keeps its scale."""
    center, spread = features.mean(dim=1, keepdim=True), features.std(dim=1, keepdim=True)
    return center, torch.where(spread > 0, spread, 1.0)


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each probe, [p], from logits [p, b, num_classes] and labels [b]."""
    losses = cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none")
    return losses.view(len(logits), -1).mean(dim=1)


class ScoreDraws:
    """Accuracy and macro-F1 in the test documents and in samples drawn from them, whole groups at a time.

    Documents of a domain are alike: to draw documents one by one would make intervals too small. All scores are of the
    same draws, so that differences are paired. Macro-F1 is the mean of F1 = 2 hits / (documents of the class +
    predictions of it) over the classes that a sample has documents of.
    """

    def __init__(self, truth: NumPyArray, groups: NumPyArray, *, num_classes: int, seed: int) -> None:
        """Args: class int64 [n] and group int64 [n] of the test documents, how many classes there are, seed."""
        self._truth, self._num_classes = truth, num_classes
        _, self._groups = np.unique(groups, return_inverse=True)
        self._num_groups = int(self._groups.max()) + 1
        drawn = np.random.default_rng(seed).multinomial(
            self._num_groups, np.full(self._num_groups, 1 / self._num_groups), size=_NUM_RESAMPLES
        )
        self._weights = np.concatenate([np.ones((1, self._num_groups)), drawn])  # the sample itself first
        self._documents = self._counts(truth, np.ones(len(truth), bool))

    def accuracy(self, predicted: NumPyArray) -> NumPyArray:
        """float64 [1 + draws] of predictions int64 [n]."""
        hits = self._counts(self._truth, predicted == self._truth)
        accuracy: NumPyArray = hits.sum(axis=1) / self._documents.sum(axis=1)
        return accuracy

    def macro_f1(self, predicted: NumPyArray) -> NumPyArray:
        """float64 [1 + draws] of predictions int64 [n]."""
        hits = self._counts(self._truth, predicted == self._truth)
        predictions = self._counts(predicted, np.ones(len(predicted), bool))
        known = self._documents > 0
        f1 = np.where(known, 2 * hits / np.where(known, self._documents + predictions, 1), 0)
        mean: NumPyArray = f1.sum(axis=1) / known.sum(axis=1)
        return mean

    def estimate(self, draws: NumPyArray) -> Estimate:
        """The sample's own score with its 95 % interval; without one where all documents are one group."""
        if self._num_groups == 1:
            return Estimate(float(draws[0]), None, None)
        low, high = np.percentile(draws[1:], _TAILS)
        return Estimate(float(draws[0]), float(low), float(high))

    def _counts(self, classes: NumPyArray, counted: NumPyArray) -> NumPyArray:
        """float64 [1 + draws, num_classes]: how many of the counted documents each sample has of each class."""
        by_group = np.zeros((self._num_groups, self._num_classes))
        np.add.at(by_group, (self._groups[counted], classes[counted]), 1)
        counts: NumPyArray = self._weights @ by_group
        return counts
