"""MLP probes: a softmax classifier with two hidden layers (the "3-layer MLP" of arXiv 2511.21613).

Probes of all layers are trained together, as one batch of matrix products. Each stops by its own validation loss and
leaves the batch, so its result does not depend on the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.probes.fits import Examples, Fit, Split, threads_for
from colophon.trainer.probes.report import ProbeWarning

HIDDEN_SIZES = (256, 256)
LEARNING_RATES = (3e-3, 1e-3)
MAX_EPOCHS = 400
MIN_PATIENCE = 5
_BATCHES_PER_EPOCH = 24  # also for many documents: with more steps, the first epoch could be the best
_BATCH_SIZES = 64, 1024
_WEIGHT_DECAY = 1e-2


def fit_mlp(
    features: Tensor,
    labels: NumPyArray,
    split: Split,
    *,
    num_classes: int,
    seed: int,
    hidden_sizes: Sequence[int] = HIDDEN_SIZES,
) -> list[Fit]:
    """Train an MLP on each of `p` sets of features of the same documents, and predict the test documents.

    AdamW runs at each of two rates, with 24 batches of 64 to 1,024 documents per epoch, until the validation loss has
    not fallen for 5 epochs, or for a third of the epochs up to its lowest if that is more; at most 400 epochs. The rate
    and the weights with the lowest loss are used. Costs about 6 x epochs x documents x weights operations per probe and
    rate.

    Args:
        features: float32 [p, n, d] of similar size, see `conditioned`, on the device to train on.
        labels: int64 [n], below `num_classes`; those of the test documents are not read.
        split: which documents are for training, validation and test.
        num_classes: number of the classifier's outputs.
        seed: random seed of the first weights, which all probes share, and of the order of documents.
        hidden_sizes: widths of the hidden layers.
    """
    sizes = [features.shape[2], *hidden_sizes, num_classes]
    weights = sum(fan_in * fan_out for fan_in, fan_out in pairwise(sizes))
    train, validation = (Examples(features, labels, part) for part in (split.train, split.validation))
    test = features[:, torch.from_numpy(split.test).to(features.device)]
    with threads_for(6 * len(features) * _batch_size(len(split.train)) * weights):
        by_rate = [_train(train, validation, sizes=sizes, rate=rate, seed=seed) for rate in LEARNING_RATES]
        predictions = [best.classes(test) for best in by_rate]
    lowest = torch.stack([best.losses for best in by_rate]).argmin(dim=0).tolist()
    return [
        Fit(
            classes=predictions[rate][number],
            chosen=LEARNING_RATES[rate],
            epochs=int(by_rate[rate].epochs[number]),
            warning=by_rate[rate].warning(number),
        )
        for number, rate in enumerate(lowest)
    ]


def _train(train: Examples, validation: Examples, *, sizes: Sequence[int], rate: float, seed: int) -> _Best:
    generator = torch.Generator().manual_seed(seed)
    net = _Probes(sizes, count=len(train.features), generator=generator).to(train.features.device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=_WEIGHT_DECAY, fused=True)
    best = _Best(net)
    known, seen = train.features, validation.features
    for epoch in range(1, MAX_EPOCHS + 1):
        order = torch.randperm(len(train.labels), generator=generator).to(known.device)
        for batch in torch.split(order, _batch_size(len(order))):
            optimizer.zero_grad(set_to_none=True)
            losses = _losses(net(known[:, batch]), train.labels[batch])
            torch.autograd.backward(losses.sum())  # each probe has its own gradient
            optimizer.step()
        with torch.no_grad():
            waits = best.update(net, _losses(net(seen), validation.labels), epoch=epoch)
        if not waits.any():
            break
        if not waits.all():
            known, seen = known[waits], seen[waits]
            _keep_some(net, optimizer, waits)
    return best


def _batch_size(num_documents: int) -> int:
    smallest, largest = _BATCH_SIZES
    return min(largest, max(smallest, num_documents // _BATCHES_PER_EPOCH))


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
        """Logits [p, b, num_classes] from features [p, b, d]."""
        return _logits(states, list(self.weights), list(self.biases))


def _logits(states: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    layers = list(zip(weights, biases, strict=True))
    for weight, bias in layers[:-1]:
        states = relu(torch.baddbmm(bias, states, weight))
    weight, bias = layers[-1]
    return torch.baddbmm(bias, states, weight)


def _keep_some(net: _Probes, optimizer: torch.optim.Optimizer, kept: Tensor) -> None:
    """Remove all probes but `kept`, bool [p], from the net and the optimizer."""
    for parameters in (net.weights, net.biases):
        for number, old in enumerate(parameters):
            new, state = nn.Parameter(old.detach()[kept]), optimizer.state.pop(old)
            optimizer.state[new] = {**state, **{name: state[name][kept] for name in ("exp_avg", "exp_avg_sq")}}
            parameters[number] = new
    optimizer.param_groups[0]["params"] = list(net.parameters())


class _Best:
    """Each probe's weights at its lowest validation loss, updated until it has waited too long for a lower one."""

    def __init__(self, net: _Probes) -> None:
        self._weights = [weight.detach().clone() for weight in net.weights]
        self._biases = [bias.detach().clone() for bias in net.biases]
        count, device = len(net.biases[0]), net.biases[0].device
        self.losses = torch.full((count,), math.inf, device=device)
        self.epochs = torch.zeros(count, dtype=torch.int64, device=device)
        self._active = torch.arange(count, device=device)

    def update(self, net: _Probes, losses: Tensor, *, epoch: int) -> Tensor:
        """The probes of `net`, bool, that are to be trained further; the next call takes these alone.

        Args:
            net: the probes that were still training.
            losses: their validation losses.
            epoch: from 1.
        """
        better = losses < self.losses[self._active]
        rows = self._active[better]
        self.losses[rows], self.epochs[rows] = losses[better], epoch
        kept = [*self._weights, *self._biases]
        for weights, parameter in zip(kept, [*net.weights, *net.biases], strict=True):
            weights[rows] = parameter.detach()[better]
        lowest = self.epochs[self._active]
        waits = epoch - lowest < torch.clamp(lowest // 3, min=MIN_PATIENCE)
        self._active = self._active[waits]
        return waits

    def warning(self, number: int) -> ProbeWarning | None:
        """Why a probe's lowest loss may not be the lowest possible."""
        if number in self._active.tolist():
            return "limit"
        return "first_epoch" if self.epochs[number] == 1 else None

    @torch.no_grad()
    def classes(self, features: Tensor) -> NumPyArray:
        """int64 [p, m]: predictions for documents float32 [p, m, d]."""
        classes: NumPyArray = _logits(features, self._weights, self._biases).argmax(dim=-1).cpu().numpy()
        return classes


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each probe, [p], from logits [p, b, num_classes] and labels [b]."""
    losses = cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none")
    return losses.view(len(logits), -1).mean(dim=1)
