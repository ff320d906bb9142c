"""The networks of classifiers: for each head a linear part and an MLP, on the mean of rows or on given vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.classifiers.settings import HeadSettings, PooledSettings

EPSILON = 1e-5
"""Added to the variance of the mean of rows: the smaller it is, the less sure the heads are."""


class PooledNetwork(nn.Module):
    """Logits of all heads from bags of rows."""

    def __init__(self, num_rows: int, num_labels: Sequence[int], settings: PooledSettings) -> None:
        super().__init__()
        bound = 1 / settings.dim
        self.rows = nn.Parameter(torch.empty(num_rows, settings.dim).uniform_(-bound, bound))
        self.norm = nn.LayerNorm(settings.dim, eps=EPSILON)
        self.dropout = nn.Dropout(settings.dropout)
        self.heads = nn.ModuleList(_Head(settings.dim, labels, settings) for labels in num_labels)

    def forward(self, rows: Tensor, firsts: Tensor) -> list[Tensor]:
        """Logits float32 [texts, labels] of each head, from `Bags.batch`."""
        mean = functional.embedding_bag(rows, self.rows, firsts, mode="mean", sparse=True, include_last_offset=True)
        pooled = self.dropout(self.norm(mean))
        return [head(pooled) for head in self.heads]

    def arrays(self) -> dict[str, NumPyArray]:
        """The weights as float32 arrays, by the names of the model's file; those of the norm are part of the heads'.

        `rows` is float32 [num_rows, dim].
        """
        scale, offset = self.norm.weight.detach(), self.norm.bias.detach()
        return {"rows": self.rows.detach().numpy(), **_head_arrays(self.heads, scale, offset)}


class EmbeddingNetwork(nn.Module):
    """Logits of all heads from vectors, whose columns are first brought to mean 0 and variance 1."""

    def __init__(self, vectors: Tensor, num_labels: Sequence[int], settings: HeadSettings) -> None:
        """`vectors` float32 [texts, dim] are those whose mean and variance count."""
        super().__init__()
        deviation, mean = torch.std_mean(vectors.double(), dim=0, correction=0)
        scale = 1 / deviation.clamp_min(EPSILON)
        self.scale, self.offset = scale.float(), (-mean * scale).float()
        self.dropout = nn.Dropout(settings.dropout)
        self.heads = nn.ModuleList(_Head(vectors.shape[1], labels, settings) for labels in num_labels)

    def forward(self, vectors: Tensor) -> list[Tensor]:
        """Logits float32 [texts, labels] of each head, from float32 [texts, dim]."""
        scaled = self.dropout(vectors * self.scale + self.offset)
        return [head(scaled) for head in self.heads]

    def arrays(self) -> dict[str, NumPyArray]:
        """The weights as float32 arrays, by the names of the model's file; scale and offset are part of the heads'."""
        return _head_arrays(self.heads, self.scale, self.offset)


class _Head(nn.Module):
    """skip · x + second · relu(first · x + first_bias) + bias."""

    def __init__(self, dim: int, num_labels: int, settings: HeadSettings) -> None:
        super().__init__()
        self.first = nn.Linear(dim, settings.hidden) if settings.hidden else None
        self.second = nn.Linear(settings.hidden, num_labels, bias=False) if settings.hidden else None
        self.skip = nn.Linear(dim, num_labels)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits float32 [texts, labels] from the pooled vectors float32 [texts, dim]."""
        logits: Tensor = self.skip(pooled)
        if self.first is not None and self.second is not None:
            logits = logits + self.second(self.dropout(functional.relu(self.first(pooled))))
        return logits

    def folded(self, scale: Tensor, offset: Tensor) -> dict[str, Tensor]:
        """The weights of a head that reads x where this one reads scale * x + offset."""
        labels, dim = self.skip.weight.shape
        first, first_bias = torch.empty(0, dim), torch.empty(0)
        second = torch.empty(labels, 0)
        if self.first is not None and self.second is not None:
            first, first_bias, second = self.first.weight, self.first.bias, self.second.weight
        return {
            "first": (first * scale).detach(),
            "first_bias": (first_bias + first @ offset).detach(),
            "second": second.detach(),
            "skip": (self.skip.weight * scale).detach(),
            "bias": (self.skip.bias + self.skip.weight @ offset).detach(),
        }


def _head_arrays(heads: nn.ModuleList, scale: Tensor, offset: Tensor) -> dict[str, NumPyArray]:
    """The weights of heads that read x where these read scale * x + offset, by the names of the model's file."""
    arrays: dict[str, NumPyArray] = {}
    for number, head in enumerate(heads):
        assert isinstance(head, _Head)
        arrays |= {f"heads.{number}.{name}": array.numpy() for name, array in head.folded(scale, offset).items()}
    return arrays
