"""A decoder that keeps the keys and values of the tokens it has read, so that it reads each token once."""

from __future__ import annotations

import torch
from torch import Tensor

from colophon.trainer.inference.trained_model import TrainedModel
from colophon.trainer.model.attention import attend


class KeyValueCache:
    """Keys and values of one layer; a call attends, see `trainer.model.decoder.Attend`."""

    def __init__(self, shape: tuple[int, int, int, int], *, dtype: torch.dtype, device: torch.device) -> None:
        """Allocate `shape`, [b, kv_heads, capacity, head_size]."""
        self._keys = torch.empty(shape, dtype=dtype, device=device)
        self._values = torch.empty_like(self._keys)
        self.length = 0

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend causally from the next tokens to themselves and to all tokens before them."""
        start, self.length = self.length, self.length + key.shape[2]
        self._keys[:, :, start : self.length] = key
        self._values[:, :, start : self.length] = value
        visible = torch.ones((key.shape[2], self.length), dtype=torch.bool, device=key.device).tril(start)
        seen = slice(0, self.length)
        return attend(query, self._keys[:, :, seen], self._values[:, :, seen], mask=visible[None, None])


class CachedDecoder:
    """A trained model that reads rows a few tokens at a time."""

    def __init__(self, trained: TrainedModel, *, num_rows: int, capacity: int) -> None:
        """Allocate caches for rows of `capacity` tokens: 2 x layers x kv_heads x head_size numbers a token."""
        config = trained.config.model
        shape = (num_rows, config.num_kv_heads, capacity, config.head_size)
        self._trained = trained
        self._caches = [
            KeyValueCache(shape, dtype=trained.dtype, device=trained.device) for _ in range(config.num_layers)
        ]

    @torch.no_grad()
    def read(self, ids: Tensor) -> Tensor:
        """float32 [num_rows, vocabulary_size]: logits after the next tokens `ids`, int64 [num_rows, L]."""
        start = self._caches[0].length
        positions = torch.arange(start, start + ids.shape[1], dtype=torch.int32, device=self._trained.device)
        model = self._trained.model
        states = model.hidden_states(ids, positions.expand_as(ids), self._caches, dtype=self._trained.dtype)
        return model.logits(states[:, -1])
