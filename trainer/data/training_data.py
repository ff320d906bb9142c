"""Batches of a training, by step."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import template_fields
from colophon.shards.schema import Role, TokenizerInfo
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.annotation_compatibility import check_annotations
from colophon.trainer.data.batch import Batch, BatchBuffer, choose_rows, read_batch
from colophon.trainer.data.held_out import HeldOut
from colophon.trainer.data.packed_layout import PackedLayout
from colophon.trainer.data.sources import Opened, open_phases
from colophon.trainer.errors import TrainerError


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
        packed = self._opened.layout(next(source for source in config.mixed_sources if source.layout == config.layout))
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
