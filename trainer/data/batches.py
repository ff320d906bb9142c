"""From packed shards to batches of tensors, in an order that is a pure function of (seed, epoch, step).

The rows of an epoch are permuted by (seed, epoch); the permutations of all epochs, joined, are cut into global
batches, of which rank r takes every world_size-th row. So every row comes once an epoch, a batch may hold the end of
one epoch and the start of the next, and neither the number of devices nor a resume changes what update `step` sees.
`trainer.data.mixture` has this order, and that of several sources; `trainer.data.sources` opens them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shards.layouts import template_fields
from shards.reader import PackedDataset, PackedRows
from shards.schema import Role, TokenizerInfo
from trainer.config import GoldfishConfig, TrainConfig
from trainer.data.annotated import check_annotations
from trainer.data.goldfish import goldfish_drops
from trainer.data.row_values import PackedLayout
from trainer.data.sources import HeldOut, Opened, open_phases
from trainer.errors import TrainerError

NumPyArray = np.ndarray[Any, Any]

_HOLD_OUT = 1  # a stream of randomness under the seed; `trainer.data.mixture` has the others


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

    def split(self, size: int) -> Iterator[Batch]:
        """The batch in parts of `size` rows; the last may be smaller."""
        for start in range(0, len(self), size):
            yield self._map(lambda tensor, part=slice(start, start + size): tensor[part])

    def _map(self, function: Any) -> Batch:
        return replace(self, **{field.name: function(getattr(self, field.name)) for field in fields(self)})


def choose_rows(num_rows: int, *, count: int, seed: int) -> NumPyArray:
    """int64 [count], ascending: rows drawn without replacement by `seed`; the same rows whatever else is set."""
    return np.sort(np.random.default_rng([seed, _HOLD_OUT]).permutation(num_rows)[:count])


class BatchBuffer:
    """Memory for a batch, filled again and again. Arrays and tensors share it."""

    def __init__(self, n: int, *, width: int, dtype: np.dtype[Any], pin: bool = False) -> None:
        """Room for `n` rows of `width` ids of a type; `pin`: in page-locked memory, for copies to a GPU."""

        def empty(width: int, dtype: torch.dtype) -> Tensor:
            return torch.empty((n, width), dtype=dtype, pin_memory=pin)

        ids = torch.from_numpy(np.empty(0, dtype)).dtype
        self.batch = Batch(
            tokens=empty(width, ids),
            roles=empty(width, torch.uint8),
            segments=empty(width, torch.int32),
            loss_weights=empty(width - 1, torch.float32),
        )
        self._rows = PackedRows(
            input_ids=self.batch.tokens.numpy(),
            roles=self.batch.roles.numpy(),
            segments=self.batch.segments.numpy(),
            documents=np.empty((n, width), np.uint32),
        )
        self._loss_weights: NumPyArray = self.batch.loss_weights.numpy()

    def fill(self, start: int, dataset: PackedDataset, rows: NumPyArray, *, goldfish: GoldfishConfig | None) -> int:
        """Copy the named rows of a data set to the places from `start` on; returns the place after them."""
        part = slice(start, start + len(rows))
        arrays = {field.name: getattr(self._rows, field.name)[part] for field in fields(PackedRows)}
        packed = dataset.rows(rows, into=PackedRows(**arrays))
        weights = packed.loss_weights(dataset.role_weights, out=self._loss_weights[part])
        if goldfish is not None:
            drops = goldfish_drops(packed.input_ids, packed.roles, packed.segments, k=goldfish.k, h=goldfish.h)
            weights[drops] = 0.0
        return part.stop


def read_batch(dataset: PackedDataset, rows: NumPyArray, *, goldfish: GoldfishConfig | None = None) -> Batch:
    """The named rows of a data set as tensors in ordinary memory; `goldfish` takes the weight of some labels."""
    buffer = BatchBuffer(len(rows), width=dataset.sequence_length + 1, dtype=dataset.id_dtype)
    buffer.fill(0, dataset, rows, goldfish=goldfish)
    return buffer.batch


class TrainingData:
    """The rows that a run trains on, and those it validates on."""

    def __init__(self, config: TrainConfig, *, output: Path) -> None:
        """Open the layouts of the run whose own are under `output`.

        Raises:
            ShardError: a layout that is not there, or files that do not fit their records.
            TrainerError: nothing left to train on; layouts that do not fit each other, or a validation set of another
                tokenizer; annotations that are asked for and not there.
        """
        self._config, self._opened = config, Opened(output)
        packed = self._opened.layout(next(source for source in config.mixed if source.layout == config.layout))
        self.dataset = packed.dataset
        """The layout that the run is validated on, as it was packed for training."""
        held_out = _held_out(packed, config)
        self.validation_dataset, self.validation_rows = held_out.packed.dataset, held_out.rows
        self._phases = open_phases(config, opened=self._opened, held_out=held_out)
        if not self.role_weights.any():
            raise TrainerError("no layout of this run pays for any role: there is nothing to learn (see role_weights)")

    @property
    def tokenizer(self) -> TokenizerInfo:
        """The tokenizer of all layouts."""
        return self.dataset.tokenizer

    @property
    def sequence_length(self) -> int:
        """Inputs of a row, in all layouts."""
        return self.dataset.sequence_length

    @property
    def role_weights(self) -> NumPyArray:
        """float32 [7]: the highest loss weight that any of the layouts has for a role."""
        return self._opened.role_weights

    @property
    def layouts(self) -> list[dict[str, Any]]:
        """The layouts as they were packed, each with its `name` and the `output` directory it is in."""
        return self._opened.described

    @property
    def num_rows(self) -> int:
        """Rows of all sources that the run starts with."""
        return sum(map(len, self._phases[0].sources))

    def summary(self) -> list[str]:
        """What is mixed, a line for a person for each phase; nothing where the run is all on one layout."""
        lines = [phase.summary() for phase in self._phases]
        return lines if len(lines) > 1 or len(self._phases[0].sources) > 1 else []

    def fingerprints(self, step: int) -> dict[str, Any]:
        """What a run that goes on after update `step` must find unchanged of the data it has seen; a phase that it has
        not come to may change."""
        first, *phases = self._phases
        shared: dict[str, Any] = {
            "shards": self.dataset.fingerprint,
            "training rows": self.num_rows,
            "validation shards": self.validation_dataset.fingerprint,
        }
        if self._config.sources or self._config.curriculum:
            shared["sources"] = first.fingerprint()
        begun = {str(n): phase for n, phase in enumerate(phases) if phase.first_step <= step}
        if begun:
            shared["phases"] = {n: {"first step": p.first_step, "sources": p.fingerprint()} for n, p in begun.items()}
        return shared

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1, buffer: BatchBuffer | None = None) -> Batch:
        """Rank `rank`'s part of the global batch of update `step` (from 1); in `buffer`, if given."""
        buffer = self._buffer(rank=rank, world_size=world_size) if buffer is None else buffer
        phase = next(phase for phase in reversed(self._phases) if phase.first_step <= step)
        filled = 0
        for source, rows in phase.rows(step, part=slice(rank, None, world_size)):
            filled = buffer.fill(filled, source.dataset, rows, goldfish=self._config.goldfish)
        return buffer.batch

    def batches(self, step: int, *, rank: int = 0, world_size: int = 1, pin: bool = False) -> Generator[Batch]:
        """The rank's parts of the batches of update `step` and those after it, without end; a thread reads one ahead.

        There is memory for two, so a batch is gone as soon as the next one is asked for.

        Args:
            step: the first update.
            rank: of this process.
            world_size: number of processes.
            pin: whether batches lie in page-locked memory, from which a GPU copies while it computes. What was
                queued on the current stream when the next batch is asked for still gets the batch before it.
        """
        buffers = [self._buffer(rank=rank, world_size=world_size, pin=pin) for _ in range(2)]

        def read(step: int, copied: torch.cuda.Event | None) -> Batch:
            if copied is not None:
                copied.synchronize()
            return self.batch(step, rank=rank, world_size=world_size, buffer=buffers[step % 2])

        # A thread starts on GPU 0; waiting there for another's event would open a context on it for every process.
        device = (torch.cuda.set_device, (torch.cuda.current_device(),)) if torch.cuda.is_available() else (None, ())
        with ThreadPoolExecutor(1, "colophon-batches", *device) as reader:
            ahead = reader.submit(read, step, None)
            while True:
                batch, step = ahead.result(), step + 1
                ahead = reader.submit(read, step, _recorded_event() if pin else None)
                yield batch

    def _buffer(self, *, rank: int, world_size: int, pin: bool = False) -> BatchBuffer:
        rows = len(range(rank, self._config.batch_size, world_size))
        return BatchBuffer(rows, width=self.sequence_length + 1, dtype=self.dataset.id_dtype, pin=pin)

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


def _recorded_event() -> torch.cuda.Event:
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


def _check_means_the_same(packed: PackedLayout, other: PackedLayout) -> None:
    """Whether a model that learns from a layout can be validated on another run's layout of the same name."""
    if other.dataset.tokenizer != packed.dataset.tokenizer:
        raise TrainerError(f"validation_output {other.output} was made with another tokenizer")
    trained, validated = packed.dataset.info.layout, other.dataset.info.layout
    for key in ("position", "template", "num_meta_tokens"):
        if trained.get(key) != validated.get(key):
            raise TrainerError(
                f"validation_output {other.output}: layout {other.layout!r} has {key} {validated.get(key)!r}, but "
                f"{trained.get(key)!r} in {packed.output}"
            )
    columns = template_fields(trained["template"]) if trained.get("template") else ()
    check_annotations(columns, trained=packed.output, other=other.output)


def _held_out(packed: PackedLayout, config: TrainConfig) -> HeldOut:
    """The rows to validate on: of another run's layout, or of the run's own and kept out of training."""
    wanted = config.validation_rows
    if config.validation_output is not None:
        other = PackedLayout.open(Path(config.validation_output), config.layout)
        _check_means_the_same(packed, other)
        available = len(other.dataset)
        rows = choose_rows(available, count=available if wanted is None else wanted, seed=config.seed)
        return HeldOut(packed=other, rows=rows)
    num_rows = len(packed.dataset)
    count = min(256, max(1, num_rows // 100)) if wanted is None else wanted
    if count >= num_rows:
        raise TrainerError(
            f"layout {config.layout!r} has {num_rows} rows, and {count} are held out for validation: none is left to "
            "train on (set validation_rows or validation_output)"
        )
    return HeldOut(packed=packed, rows=choose_rows(num_rows, count=count, seed=config.seed))
