"""What both kinds of probes share: documents of each part, what a fit gives, threads that are worth their while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.probes.report import Doubt

_OPERATIONS_A_THREAD = 500_000_000


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
class Fit:
    """A probe that has been fitted."""

    classes: NumPyArray
    """int64 [num_test]: what it says of the test documents."""
    chosen: float
    """The strength of the penalty, or the learning rate, of the lowest validation loss."""
    epochs: int
    """Of an MLP, until its lowest validation loss; of a linear probe, iterations over all training documents."""
    doubt: Doubt | None
    """Why it may not be the best of its kind."""


class Part:
    """Features [p, m, d] and labels [m] of some documents."""

    def __init__(self, features: Tensor, labels: NumPyArray, documents: NumPyArray) -> None:
        """Args: of all documents float32 [p, n, d] and int64 [n]; int64 [m]: which."""
        self.features = features[:, torch.from_numpy(documents).to(features.device)]
        self.labels = torch.from_numpy(labels[documents]).to(features.device)


@contextmanager
def threads_for(operations: int) -> Iterator[None]:
    """As many threads of the CPU as a step of so many operations is worth: with more of them they wait for each other
    longer than they work, 30 times longer where other processes use the cores too."""
    available = torch.get_num_threads()
    torch.set_num_threads(max(1, min(available, operations // _OPERATIONS_A_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(available)
