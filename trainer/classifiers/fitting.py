"""Training of classifiers with heads.

Rows of `pooled` ones are trained by Adagrad, whose steps are as large for rare n-grams as for frequent ones; heads by
AdamW. Both learning rates fall linearly to zero. One thread, so that equal settings give equal weights on one kind of
machine. Cost of a `pooled` one: about 10 s of one core for 10,000 short texts; 4 * dim * rows bytes of memory, twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.classifiers.bags import Bags
from colophon.trainer.classifiers.network import EmbeddingNetwork, PooledNetwork
from colophon.trainer.classifiers.settings import EmbeddingSettings, HeadSettings, PooledSettings
from colophon.trainer.errors import DivergedError

_REPORTS = 5

Optimizers = dict[torch.optim.Optimizer, float]
"""Optimizers, each with its learning rate at the start."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The labels of texts for one head."""

    num_labels: int
    labels: NumPyArray
    """int64 [texts], the number of each text's label, -1 for one without; or bool [texts, labels], several a text."""
    is_known: NumPyArray
    """bool [texts]: whether the text has labels for this head; the others train the other heads alone."""


def fit(
    bags: Bags, heads: Sequence[Targets], settings: PooledSettings, *, report: Callable[[str], None]
) -> dict[str, NumPyArray]:
    """Train a `pooled` model, and return its weights: see `PooledNetwork.arrays`.

    `report` gets a line from time to time.

    Raises:
        DivergedError: a loss is not finite.
    """
    random = np.random.default_rng(settings.seed)
    with _seeded(settings.seed):
        network = PooledNetwork(bags.num_rows, [head.num_labels for head in heads], settings)
        others = [parameter for name, parameter in network.named_parameters() if name != "rows"]
        optimizers: Optimizers = {
            torch.optim.Adagrad([network.rows], lr=settings.lr): settings.lr,
            **_adamw(others, lr=settings.head_lr),
        }

        def logits(texts: NumPyArray) -> list[Tensor]:
            rows, firsts = bags.batch(texts, crop=settings.crop, word_dropout=settings.word_dropout, random=random)
            return cast("list[Tensor]", network(rows, firsts))

        _train(logits, optimizers, heads, num_texts=len(bags), settings=settings, random=random, report=report)
        return network.arrays()


def fit_heads(
    vectors: npt.NDArray[np.float32],
    heads: Sequence[Targets],
    settings: EmbeddingSettings,
    *,
    report: Callable[[str], None],
) -> dict[str, NumPyArray]:
    """Train heads on vectors float32 [texts, dim], and return their weights: see `EmbeddingNetwork.arrays`.

    `report` gets a line from time to time.

    Raises:
        DivergedError: a loss is not finite.
    """
    random = np.random.default_rng(settings.seed)
    inputs = torch.from_numpy(vectors)
    with _seeded(settings.seed):
        network = EmbeddingNetwork(inputs, [head.num_labels for head in heads], settings)

        def logits(texts: NumPyArray) -> list[Tensor]:
            return cast("list[Tensor]", network(inputs[torch.from_numpy(texts)]))

        optimizers = _adamw(network.parameters(), lr=settings.head_lr)
        _train(logits, optimizers, heads, num_texts=len(inputs), settings=settings, random=random, report=report)
        return network.arrays()


def _train(
    logits: Callable[[NumPyArray], list[Tensor]],
    optimizers: Optimizers,
    heads: Sequence[Targets],
    *,
    num_texts: int,
    settings: HeadSettings,
    random: np.random.Generator,
    report: Callable[[str], None],
) -> None:
    """Take all steps; `logits` are those of each head for the texts of a step."""
    steps_per_epoch = math.ceil(num_texts / settings.batch_size)
    num_steps = steps_per_epoch * max(settings.epochs, math.ceil(settings.min_steps / steps_per_epoch))
    total, since = 0.0, 0
    for step, texts in enumerate(_batches(num_texts, num_steps, settings.batch_size, random)):
        loss = _loss(logits(texts), heads, texts, label_smoothing=settings.label_smoothing)
        _update(optimizers, loss, left=1 - step / num_steps)
        total, since = total + loss.item(), since + 1
        if not math.isfinite(total):
            rates = " or ".join(f"{rate:g}" for rate in optimizers.values())
            raise DivergedError(f"step {step + 1}: the loss is not finite; try a lower lr than {rates}")
        if (step + 1) % math.ceil(num_steps / _REPORTS) == 0 or step + 1 == num_steps:
            report(f"step {step + 1:,} of {num_steps:,}: loss {total / since:.4f}")
            total, since = 0.0, 0


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers from `seed`, and one thread, inside the block."""
    threads = torch.get_num_threads()
    # The gradients of rows are sparse tensors that torch itself builds: checking them again would cost time.
    unchecked = torch.sparse.check_sparse_tensor_invariants(enable=False)  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=[]), unchecked:
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _adamw(parameters: Iterable[nn.Parameter], *, lr: float) -> Optimizers:
    return {torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01): lr}


def _batches(num_texts: int, num_steps: int, batch_size: int, random: np.random.Generator) -> Iterator[NumPyArray]:
    """The texts of each step; each epoch has all of them in an order of its own."""
    given = 0
    while given < num_steps:
        order = random.permutation(num_texts)
        for start in range(0, num_texts, batch_size):
            yield order[start : start + batch_size]
            given += 1


def _loss(logits: Sequence[Tensor], heads: Sequence[Targets], texts: NumPyArray, *, label_smoothing: float) -> Tensor:
    """The sum over heads of the mean loss of the texts that have labels."""
    losses = []
    for found, head in zip(logits, heads, strict=True):
        known = np.flatnonzero(head.is_known[texts])
        if not known.size:
            continue
        some, labels = found[torch.from_numpy(known)], torch.from_numpy(head.labels[texts[known]])
        if labels.ndim == 2:
            each = functional.binary_cross_entropy_with_logits(some, labels.float(), reduction="none")
            losses.append(each.sum(dim=1).mean())
        else:
            losses.append(functional.cross_entropy(some, labels, label_smoothing=label_smoothing))
    return torch.stack(losses).sum() if losses else logits[0].sum() * 0


def _update(optimizers: Optimizers, loss: Tensor, *, left: float) -> None:
    """One step of each optimizer with `left` times its learning rate at the start."""
    for optimizer, rate in optimizers.items():
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = rate * left
    torch.autograd.backward(loss)
    for optimizer in optimizers:
        optimizer.step()
