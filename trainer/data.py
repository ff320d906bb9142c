"""From packed shards to batches of tensors, in an order that is a pure function of (seed, epoch, step).

The rows of an epoch are permuted by (seed, epoch); the permutations of all epochs, joined, are cut into global
batches, of which rank r takes every world_size-th row. So every row comes once an epoch, a batch may hold the end of
one epoch and the start of the next, and neither the number of devices nor a resume changes what update `step` sees.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shards.reader import PackedDataset
from shards.schema import Role
from trainer.config import GoldfishConfig, TrainConfig
from trainer.errors import TrainerError
from trainer.goldfish import goldfish_drops

NumPyArray = np.ndarray[Any, Any]

_ORDER, _HOLD_OUT = 0, 1  # streams of randomness under one seed


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of training data; `b` rows of `L` inputs. What follows from other fields is worked out where it is used."""

    tokens: Tensor
    """uint16 or uint32 [b, L + 1], as in the shards: inputs and labels in one."""
    roles: Tensor
    """uint8 [b, L + 1]: the `Role` of each token."""
    segments: Tensor
    """int32 [b, L + 1]: the segment of each token in its row."""
    loss_weights: Tensor
    """float32 [b, L]: the weight of each label."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def input_ids(self) -> Tensor:
        """int64 [b, L]."""
        return self.tokens[:, :-1].long()

    @property
    def labels(self) -> Tensor:
        """int64 [b, L]: the inputs shifted by one."""
        return self.tokens[:, 1:].long()

    @property
    def label_roles(self) -> Tensor:
        """int64 [b, L]: the `Role` of each label."""
        return self.roles[:, 1:].long()

    @property
    def input_segments(self) -> Tensor:
        """int32 [b, L]: the segment of each input."""
        return self.segments[:, :-1]

    @property
    def positions(self) -> Tensor:
        """int32 [b, L]: the position of each input in its segment."""
        segments = self.input_segments
        index = torch.arange(segments.shape[1], dtype=torch.int32, device=segments.device)
        starts = index.expand_as(segments).clone()
        starts[:, 1:] *= segments[:, 1:] != segments[:, :-1]
        return index - starts.cummax(dim=1).values

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; does not wait for the copy when the batch is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin(self) -> Batch:
        """The same batch in page-locked memory, from which a GPU copies while it computes."""
        return self._map(Tensor.pin_memory)

    def split(self, size: int) -> Iterator[Batch]:
        """The batch in parts of `size` rows; the last may be smaller."""
        for start in range(0, len(self), size):
            yield self._map(lambda tensor, part=slice(start, start + size): tensor[part])

    def _map(self, function: Any) -> Batch:
        return replace(self, **{field.name: function(getattr(self, field.name)) for field in fields(self)})


@lru_cache(maxsize=2)
def epoch_order(num_rows: int, *, seed: int, epoch: int) -> NumPyArray:
    """int64 [num_rows]: the permutation of one epoch."""
    order: NumPyArray = np.random.default_rng([seed, _ORDER, epoch]).permutation(num_rows)
    order.flags.writeable = False
    return order


def batch_indices(step: int, *, num_rows: int, batch_size: int, seed: int) -> NumPyArray:
    """int64 [batch_size]: which of `num_rows` rows make the global batch of update `step` (from 1)."""
    samples = np.arange((step - 1) * batch_size, step * batch_size)
    indices = np.empty(batch_size, np.int64)
    for epoch in range(samples[0] // num_rows, samples[-1] // num_rows + 1):
        here = samples // num_rows == epoch
        indices[here] = epoch_order(num_rows, seed=seed, epoch=int(epoch))[samples[here] % num_rows]
    return indices


def choose_rows(num_rows: int, *, count: int, seed: int) -> NumPyArray:
    """int64 [count], ascending: rows drawn without replacement by `seed`; the same rows whatever else is set."""
    return np.sort(np.random.default_rng([seed, _HOLD_OUT]).permutation(num_rows)[:count])


def read_batch(dataset: PackedDataset, rows: NumPyArray, *, goldfish: GoldfishConfig | None = None) -> Batch:
    """The named rows of a data set as tensors in ordinary memory; `goldfish` takes the weight of some labels."""
    packed = dataset.rows(rows)
    weights = packed.loss_weights(dataset.role_weights)
    if goldfish is not None:
        drops = goldfish_drops(packed.input_ids, packed.roles, packed.segments, k=goldfish.k, h=goldfish.h)
        weights[drops] = 0.0
    return Batch(
        tokens=torch.from_numpy(packed.input_ids),
        roles=torch.from_numpy(packed.roles),
        segments=torch.from_numpy(packed.segments),
        loss_weights=torch.from_numpy(weights),
    )


class TrainingData:
    """The rows that a run trains on, and those it validates on."""

    def __init__(self, config: TrainConfig, *, output: Path) -> None:
        """Open the layout of the run under `output`.

        Raises:
            ShardError: a layout that is not there, or files that do not fit their records.
            TrainerError: nothing left to train on, or a validation set of another tokenizer.
        """
        self._config = config
        self.dataset = PackedDataset.open(output, config.layout)
        self.rows: NumPyArray = np.arange(len(self.dataset))
        if config.validation_output is None:
            self.validation_dataset = self.dataset
            self.validation_rows = _held_out(len(self.dataset), config)
            self.rows = np.setdiff1d(self.rows, self.validation_rows)
        else:
            self.validation_dataset = PackedDataset.open(Path(config.validation_output), config.layout)
            if self.validation_dataset.tokenizer != self.dataset.tokenizer:
                raise TrainerError(f"validation_output {config.validation_output} was made with another tokenizer")
            available = len(self.validation_dataset)
            self.validation_rows = choose_rows(
                available,
                count=available if config.validation_rows is None else config.validation_rows,
                seed=config.seed,
            )

    def fingerprints(self) -> dict[str, str | int]:
        """What a resumed run must find unchanged of the shards."""
        return {
            "shards": self.dataset.fingerprint,
            "training rows": len(self.rows),
            "validation shards": self.validation_dataset.fingerprint,
        }

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> Batch:
        """Rank `rank`'s part of the global batch of update `step` (from 1)."""
        config = self._config
        indices = batch_indices(step, num_rows=len(self.rows), batch_size=config.batch_size, seed=config.seed)
        return read_batch(self.dataset, self.rows[indices[rank::world_size]], goldfish=config.goldfish)

    def batches(self, step: int, *, rank: int = 0, world_size: int = 1, pin: bool = False) -> Generator[Batch]:
        """The rank's parts of the batches of update `step` and those after it, without end; a thread reads one ahead.

        Args:
            step: the first update.
            rank: of this process.
            world_size: number of processes.
            pin: whether batches lie in page-locked memory, from which a GPU copies while it computes.
        """

        def read(step: int) -> Batch:
            batch = self.batch(step, rank=rank, world_size=world_size)
            return batch.pin() if pin else batch

        with ThreadPoolExecutor(1, thread_name_prefix="colophon-batches") as reader:
            ahead = reader.submit(read, step)
            while True:
                batch, step = ahead.result(), step + 1
                ahead = reader.submit(read, step)
                yield batch

    def validation_batches(self, *, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """The rank's part of the validation rows, in micro-batches; as many for each rank.

        Where the rows do not come out even, some rank has one again as padding.
        """
        rows = self.validation_rows
        mine = rows[rank::world_size]
        fillers = -(-len(rows) // world_size) - len(mine)
        mine = np.concatenate([mine, rows[:fillers]])
        size = self._config.rows_at_once
        for start in range(0, len(mine), size):
            batch = read_batch(self.validation_dataset, mine[start : start + size])
            if fillers and start + size >= len(mine):
                batch.roles[-fillers:], batch.loss_weights[-fillers:] = Role.PAD, 0.0
            yield batch


def _held_out(num_rows: int, config: TrainConfig) -> NumPyArray:
    """The rows to keep out of training."""
    wanted = config.validation_rows
    count = min(256, max(1, num_rows // 100)) if wanted is None else wanted
    if count >= num_rows:
        raise TrainerError(
            f"layout {config.layout!r} has {num_rows} rows, and {count} are held out for validation: none is left to "
            "train on (set validation_rows or validation_output)"
        )
    return choose_rows(num_rows, count=count, seed=config.seed)
