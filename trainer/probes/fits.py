"""Common parts of both kinds of probes: the split of the documents, a fitted probe's result, and CPU threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.probes.report import ProbeWarning

_OPERATIONS_PER_THREAD = 500_000_000


@dataclass(frozen=True, kw_only=True)
class Split:
    """Numbers of the documents for training, validation and test: int64 each, disjoint."""

    train: NumPyArray
    validation: NumPyArray
    test: NumPyArray

    def named(self) -> dict[str, NumPyArray]:
        """The parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The result of fitting a probe."""

    classes: NumPyArray
    """int64 [num_test]: its predictions for the test documents."""
    chosen: float
    """The strength of the penalty, or the learning rate, with the lowest validation loss."""
    epochs: int
    """MLP: epochs until its lowest validation loss. Linear probe: iterations over all training documents."""
    warning: ProbeWarning | None
    """Why it may not be the best probe of its kind."""


class Examples:
    """Features [p, m, d] and labels [m] of some documents."""

    def __init__(self, features: Tensor, labels: NumPyArray, documents: NumPyArray) -> None:
        """Select `documents` int64 [m] from features float32 [p, n, d] and labels int64 [n]."""
        self.features = features[:, torch.from_numpy(documents).to(features.device)]
        self.labels = torch.from_numpy(labels[documents]).to(features.device)


@contextmanager
def threads_for(operations: int) -> Iterator[None]:
    """Use as many CPU threads as a step of this many operations is worth inside the block.

    With more threads they wait for each other longer than they work: 30 times longer where other processes use the
    cores too.
    """
    available = torch.get_num_threads()
    torch.set_num_threads(max(1, min(available, operations // _OPERATIONS_PER_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(available)
