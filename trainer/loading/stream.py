"""The samples of a training as a stream: one rank's share, divided among the workers of a `DataLoader`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from colophon.shards.reader import PackedDataset as PackedReader
from colophon.trainer.config import TrainConfig
from colophon.trainer.errors import TrainerError
from colophon.trainer.loading.datasets import TrainingDataset
from colophon.trainer.loading.samples import Sample


class PackedIterableDataset(IterableDataset[Sample]):
    """A rank's samples in the order of `colophon train`, from any update on.

    Rank r of n has the rows r, r + n, ... of each global batch, as in `colophon train`. A `DataLoader` takes its
    batches from its workers in turn, so worker k of w yields the batches k, k + w, ...; with `rows_at_once` as its
    batch size, the order does not depend on the number of workers, and no sample is missing or repeated with any.
    """

    def __init__(
        self,
        output: str | Path,
        settings: TrainConfig | Mapping[str, Any],
        *,
        rank: int = 0,
        world_size: int = 1,
        rows_at_once: int | None = None,
    ) -> None:
        """Open the layouts of a training.

        Args:
            output, settings: see `TrainingDataset`.
            rank: of this process. A library that divides the stream itself, such as accelerate, needs the default.
            world_size: number of processes.
            rows_at_once: the batch size of the `DataLoader`. None: the rank's rows of an update.

        Raises:
            ShardError: a layout is missing, or a file differs from its record.
            TrainerError: a setting is invalid, or no row or label is left to train on.
        """
        self._samples = TrainingDataset(output, settings)
        self.config = self._samples.config
        if not 0 <= rank < world_size <= self.config.batch_size:
            raise TrainerError(
                f"rank {rank} of world_size {world_size}: expected 0 <= rank < world_size <= batch_size "
                f"({self.config.batch_size})"
            )
        self._rank, self._world_size = rank, world_size
        self.rows_of_update = len(range(rank, self.config.batch_size, world_size))
        """The rank's rows of each update."""
        self.rows_at_once = self.rows_of_update if rows_at_once is None else rows_at_once
        """The batch size of the `DataLoader`."""
        if self.rows_at_once < 1:
            raise TrainerError(f"rows_at_once must be at least 1, got {rows_at_once}")
        self.step = 0
        """Updates before the first sample; `load_state_dict` sets it."""

    @property
    def reader(self) -> PackedReader:
        """The rows of the layout that validation uses; all layouts have its tokenizer and sequence length."""
        return self._samples.reader

    def __len__(self) -> int:
        """Samples of the updates that are left."""
        return (self.config.num_steps - self.step) * self.rows_of_update

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples of the updates that are left."""
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        first, total = self.step * self.rows_of_update, len(self)
        distance = count * self.rows_at_once
        for start in range(number * self.rows_at_once, total, distance):
            ahead = (start, start + distance) if start < distance else (start + distance,)
            for begin in ahead:
                self._samples.read_ahead(self._numbers(first, begin, total))
            for sample in self._numbers(first, start, total):
                yield self._samples[sample]

    def _numbers(self, first: int, start: int, total: int) -> Iterator[int]:
        """Yield the numbers, in the whole training, of up to `rows_at_once` samples of this rank from `start` on."""
        for place in range(start, min(start + self.rows_at_once, total)):
            step, row = divmod(first + place, self.rows_of_update)
            yield step * self.config.batch_size + self._rank + row * self._world_size

    def state_dict(self, step: int) -> dict[str, Any]:
        """JSON values from which a different process, with any world size and workers, continues.

        Args:
            step: updates that the training has done. Only the training knows: workers read ahead.
        """
        config = self.config
        data = self._samples.data.fingerprints(max(step, 1))
        return {"step": step, "batch_size": config.batch_size, "seed": config.seed, "data": data}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the updates of a state.

        Raises:
            TrainerError: the state is of other data, or of a different order.
        """
        step, steps = state.get("step"), self.config.num_steps
        if not isinstance(step, int) or not 0 <= step <= steps:
            raise TrainerError(f"state: step {step!r} is invalid: expected 0 to {steps}")
        for key, expected in self.state_dict(step).items():
            if state.get(key) != expected:
                raise TrainerError(f"state: {_difference(key, state.get(key), expected)}")
        self.step = step


def _difference(key: str, found: Any, expected: Any) -> str:
    """The first different value of a state; of nested values that with the first different key."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        name = next(name for name in {**found, **expected} if found.get(name) != expected.get(name))
        return _difference(f"{key}.{name}", found.get(name), expected.get(name))
    return f"{key} was {found!r:.80}, and is {expected!r:.80} now"
