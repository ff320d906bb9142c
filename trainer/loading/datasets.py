"""Map-style data sets: the rows of a layout as stored, and the samples of a training in its order.

Both are pickled by path and opened again in workers; rows are memory-mapped, so workers share their pages, or read by
ranges from an object store through one cache. They have what torch's `DataLoader` and a source of `grain` ask for:
`__len__` and `__getitem__`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from torch.utils.data import Dataset

from colophon.shards.reader import PackedDataset as PackedReader
from colophon.shards.stores.cache_settings import CacheSettings
from colophon.shards.stores.places import run_place
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.batch import read_batch
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.loading.samples import Sample, samples_of, train_config


class PackedDataset(Dataset[Sample]):
    """The rows of one layout in the order in which they are stored, for loops that shuffle."""

    def __init__(self, output: str | Path, layout: str, *, cache: CacheSettings | None = None) -> None:
        """Open a layout.

        Args:
            output: the output directory of a finished run, or its URL in an object store.
            layout: the name of a packed layout.
            cache: of rows of an object store; None: the default.

        Raises:
            ShardError: the run or the layout is missing, or a file differs from its record.
        """
        self._output, self._layout, self._cache = run_place(output), layout, cache
        self._num_rows = len(self.reader)

    @cached_property
    def reader(self) -> PackedReader:
        """The rows as arrays."""
        return PackedReader.open(self._output, self._layout, cache=self._cache)

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, row: SupportsIndex) -> Sample:
        """One row; a negative number counts from the end."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[SupportsIndex]) -> list[Sample]:
        """Several rows, read together."""
        numbers = [_checked(row, len(self)) for row in rows]
        return samples_of(read_batch(self.reader, np.array(numbers, np.int64)))

    def __getstate__(self) -> dict[str, Any]:
        """Without the open files."""
        return {name: value for name, value in vars(self).items() if name != "reader"}


class TrainingDataset(Dataset[Sample]):
    """The samples of a training in the order of `colophon train`, for loops that read in order.

    Sample i is row i % batch_size of the global batch of update i // batch_size + 1. So a loop that reads in order,
    with `batch_size` samples an update over all of its processes, trains on the same rows in every update, and its
    state is the number of updates.
    """

    def __init__(self, output: str | Path, settings: TrainConfig | Mapping[str, Any]) -> None:
        """Open the layouts of a training.

        Args:
            output: the output directory of a finished run, or its URL in an object store.
            settings: a `[train.<name>]` of a recipe, or its keys: layout or sources, phases, curriculum, batch_size,
                steps or text_tokens, seed, validation_rows, goldfish, cache_bytes, cache_directory. Others have no
                effect. Unless `validation_rows` is 0, the rows that `colophon train` holds out are excluded.

        Raises:
            ShardError: a layout is missing, or a file differs from its record.
            TrainerError: a setting is invalid, or no row or label is left to train on.
        """
        self._output, self.config = run_place(output), train_config(settings)
        self.config = self.data.config  # errors belong here, not in a worker

    @cached_property
    def data(self) -> TrainingData:
        """The rows by update."""
        return TrainingData(self.config, output=self._output)

    @property
    def reader(self) -> PackedReader:
        """The rows of the layout that validation uses; all layouts have its tokenizer and sequence length."""
        return self.data.dataset

    def __len__(self) -> int:
        return self.config.num_steps * self.config.batch_size

    def __getitem__(self, sample: SupportsIndex) -> Sample:
        """One sample; a negative number counts from the end."""
        step, place = divmod(_checked(sample, len(self)), self.config.batch_size)
        # The part of one of batch_size ranks is one row.
        batch = self.data.batch(step + 1, rank=place, world_size=self.config.batch_size)
        return samples_of(batch)[0]

    def __getitems__(self, samples: Sequence[SupportsIndex]) -> list[Sample]:
        """Several samples; those in an object store are requested together."""
        self.read_ahead([_checked(sample, len(self)) for sample in samples])
        return [self[sample] for sample in samples]

    def read_ahead(self, samples: Iterable[int]) -> None:
        """Start to read samples that will be asked for, where they are in an object store."""
        batch_size = self.config.batch_size
        for step, place in (divmod(sample, batch_size) for sample in samples):
            self.data.read_ahead(range(step + 1, step + 2), rank=place, world_size=batch_size)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open files."""
        return {name: value for name, value in vars(self).items() if name != "data"}


def _checked(index: SupportsIndex, length: int) -> int:
    """The index, counted from 0.

    Raises:
        IndexError: it is out of range, which also ends a loop over a data set.
    """
    number = index.__index__()
    if not -length <= number < length:
        raise IndexError(f"index {number} is out of range: {length} samples")
    return number % length
