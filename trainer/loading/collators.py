"""Collators: samples as the keyword arguments of models of `transformers`.

The models shift labels by themselves unless they get `shift_labels`. Their loss is a mean over labels, so it has no
weights other than 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from colophon.trainer.errors import TrainerError
from colophon.trainer.loading.samples import Sample


def collate_for_transformers(samples: Sequence[Sample]) -> dict[str, Any]:
    """`input_ids`, `labels`, `shift_labels` and `position_ids`, int64 [n, L], and `use_cache`, False.

    With eager, SDPA or Flex attention, the models derive the document mask from `position_ids`. They do so without a
    cache alone; with one, documents of a row would see each other.

    Raises:
        TrainerError: a loss weight is neither 0 nor 1.
    """
    _check_weights(samples)
    labels = torch.stack([sample["labels"] for sample in samples])
    return {
        "input_ids": torch.stack([sample["input_ids"] for sample in samples]),
        "labels": labels,
        "shift_labels": labels,
        "position_ids": torch.stack([sample["positions"] for sample in samples]),
        "use_cache": False,
    }


def collate_varlen(samples: Sequence[Sample]) -> dict[str, Any]:
    """The samples joined to one row, with the arguments of flash attention: no padding, no mask.

    `input_ids`, `labels`, `shift_labels` and `position_ids` are int64 [1, n * L]; `cu_seq_lens_q` and `cu_seq_lens_k`
    int32 [num_segments + 1]; `max_length_q` and `max_length_k` the length of the longest segment; `use_cache` is False.

    Raises:
        TrainerError: a loss weight is neither 0 nor 1.
    """
    stacked = collate_for_transformers(samples)
    joined = {name: v.reshape(1, -1) if isinstance(v, Tensor) else v for name, v in stacked.items()}
    starts = torch.nonzero(joined["position_ids"][0] == 0).flatten()
    boundaries = torch.cat([starts, torch.tensor([joined["position_ids"].shape[1]])]).to(torch.int32)
    longest = int(boundaries.diff().max())
    return {
        **joined,
        "cu_seq_lens_q": boundaries,
        "cu_seq_lens_k": boundaries,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _check_weights(samples: Sequence[Sample]) -> None:
    for sample in samples:
        weights = sample["loss_weights"]
        others = weights[(weights != 0) & (weights != 1)]
        if len(others):
            raise TrainerError(
                f"loss weight {others[0].item():g}: the losses of transformers have 0 and 1 alone. Set role_weights of "
                "the layout, or compute the loss from loss_weights"
            )
